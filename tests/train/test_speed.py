"""What training says about its speed: tokens a second, share of the peak, a trace of ten steps."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from pygolf.config import ModelConfig, RuntimeConfig
from pygolf.model.flops import peak_flops, training_flops
from pygolf.pipeline import Run, create_run
from pygolf.progress import Reporter, read_metrics
from pygolf.runtime import Runtime
from pygolf.train.trace import TRACED_STEPS

CPU = torch.device("cpu")


def test_the_record_model_costs_what_its_products_cost() -> None:
    weights = 11 * (2 * 512 * 512 + 2 * 512 * 256 + 2 * 512 * 1536) + 128 * 512 + 128 * 256 + 512 * 1024
    attention = 11 * 2 * 512 * (2048 / 2)
    assert training_flops(ModelConfig()) == 6 * (weights + attention)
    assert training_flops(ModelConfig()) == pytest.approx(240e6, rel=0.06)  # measured: 240 MFLOP a token


def test_only_known_devices_have_a_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert peak_flops(torch.device("cuda")) == 989e12
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA T4")
    assert peak_flops(torch.device("cuda")) == peak_flops(CPU) == 0.0


def test_metrics_tell_the_speed(finished: Run) -> None:
    records = [r for r in read_metrics(finished.folder / "metrics.jsonl") if r["stage"] == "train"]
    for before, after in pairwise(records[10:]):
        assert after["tokens_per_second"] > 0
        assert 0 <= before["wait_seconds"] <= after["wait_seconds"] <= after["seconds"]


def test_a_trace_holds_ten_steps(finished: Run, tmp_path: Path) -> None:
    config = dataclasses.replace(finished.config, runs=tmp_path, runtime=RuntimeConfig(device="cpu", profile=True))
    run = Run(config, Runtime(CPU), Reporter(enabled=False))
    create_run(run)
    run.train()
    events = json.loads((run.folder / "trace.json").read_text())["traceEvents"]
    steps = {event["name"] for event in events if event["name"].startswith("ProfilerStep#")}
    assert len(steps) == TRACED_STEPS
    assert any(event.get("name") == "aten::scaled_dot_product_attention" for event in events)
