"""What only a GPU can show: the run's stages on CUDA agree with the CPU to bf16 rounding."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch

from pygolf.config import AdaptConfig, DataConfig, RuntimeConfig
from pygolf.model.gpt import GPT
from pygolf.pipeline import Run, create_run
from pygolf.presets import tiny
from pygolf.progress import Reporter
from pygolf.runtime import launch

pytestmark = pytest.mark.gpu


def test_bf16_losses_agree_with_fp32(small_model: GPT, windows: torch.Tensor) -> None:
    ids = windows.long()
    expected = small_model(ids[:, :-1], ids[:, 1:])
    on_gpu = copy.deepcopy(small_model).cuda()
    on_gpu.compute_dtype = torch.bfloat16
    found = on_gpu(ids[:, :-1].cuda(), ids[:, 1:].cuda()).cpu()
    # bf16 keeps 8 bits: a step of 2^-8 of the logits' size, about 3.
    assert (found - expected).abs().max() < 0.2
    assert float(found.mean()) == pytest.approx(float(expected.mean()), abs=0.01)


@pytest.mark.parametrize("compiled", ["off", "on"])
def test_a_run_on_cuda_gives_what_the_cpu_gives(compiled: str, data_folder: Path, tmp_path: Path) -> None:
    reports = {}
    for device in ("cpu", "cuda"):
        base = dataclasses.replace(tiny(), name=device, runs=tmp_path, adapt=AdaptConfig(epochs=1, windows_per_step=4))
        config = dataclasses.replace(
            base,
            data=DataConfig(path=data_folder, holdout_windows=24, val_tokens=1_025),
            model=dataclasses.replace(base.model, width=64, rotary_dims=16),
            runtime=RuntimeConfig(device=device, compile=compiled if device == "cuda" else "off"),  # type: ignore[arg-type]
        )
        with launch(config.runtime) as runtime:
            run = Run(config, runtime, Reporter(config.folder / "metrics.jsonl"))
            create_run(run)
            run.run()
        reports[device] = json.loads((config.folder / "report.json").read_text())
    for figure in ("bpb", "bpb_plain", "bpb_unquantized"):
        assert reports["cuda"][figure] == pytest.approx(reports["cpu"][figure], rel=0.01), figure
    assert reports["cuda"]["tokens_scored"] == reports["cpu"]["tokens_scored"]
