"""The quantize stage: either method ends within the budget, with every parameter in the file."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from pygolf._core import ArtifactReader
from pygolf.config import QuantConfig
from pygolf.data.loader import to_ids
from pygolf.errors import BudgetError
from pygolf.model.gpt import GPT
from pygolf.progress import Reporter
from pygolf.quant.stage import PackedModel, calibrate, pack_model
from pygolf.runtime import Runtime

QUIET = Reporter(enabled=False)


def packed(model: GPT, windows: Tensor, config: QuantConfig, allowed: int) -> PackedModel:
    runtime = Runtime(torch.device("cpu"))
    found = calibrate(model, windows, config, runtime, microbatch_windows=24, seed=0, reporter=QUIET)
    return pack_model(model, found, config, {"a": 1}, allowed=allowed, threads=1, reporter=QUIET)


@pytest.mark.parametrize("method", ["rd", "record"])
def test_it_fits_the_budget(method: Literal["rd", "record"], small_model: GPT, windows: Tensor, tmp_path: Path) -> None:
    whole = packed(small_model, windows, QuantConfig(method=method), 10_000_000)
    allowed = int(0.8 * len(whole.data))
    result = packed(small_model, windows, QuantConfig(method=method), allowed)
    assert 0.99 * allowed <= len(result.data) <= allowed
    (tmp_path / "m.golf").write_bytes(result.data)
    reader = ArtifactReader(str(tmp_path / "m.golf"))
    assert json.loads(reader.manifest)["quantization"]["method"] == method
    decoded = copy.deepcopy(small_model)
    with torch.no_grad():
        for name, parameter in decoded.named_parameters():
            parameter.copy_(torch.from_numpy(reader.dequantize(name)).view(parameter.shape))
        ids_BT, targets_BT = to_ids(windows, torch.device("cpu"))
        rise = decoded(ids_BT, targets_BT).mean() - small_model(ids_BT, targets_BT).mean()
    assert abs(float(rise)) < 0.1
    assert sum(result.errors.values()) > sum(whole.errors.values())


def test_two_sided_and_no_trellis_are_settings(small_model: GPT, windows: Tensor) -> None:
    for config in (QuantConfig(two_sided=True), QuantConfig(states=1)):
        result = packed(small_model, windows, config, 20_000)
        assert 0.999 * 20_000 <= len(result.data) <= 20_000


def test_a_budget_too_small_is_an_error(small_model: GPT, windows: Tensor) -> None:
    with pytest.raises(BudgetError, match=r"[\d,]+ too many, even with steps of .* Raise quant\.budget_bytes"):
        packed(small_model, windows, QuantConfig(), 900)
