"""The picture of a training shows every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from pygolf.pipeline import Run
from pygolf.progress import Reporter
from pygolf.report.plots import draw_training, training_records


def test_every_step_is_drawn(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[Any, Any]] = []
    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda axes, x, y, **options: drawn.append((x, y)) or plot(axes, x, y, **options))
    draw_training(finished.folder / "metrics.jsonl", tmp_path / "training.png")
    records = training_records(finished.folder / "metrics.jsonl")
    assert [r["step"] for r in records] == list(range(20))
    assert drawn[0] == ([r["seconds"] for r in records], [r["loss"] for r in records])
    assert [len(y) for _, y in drawn] == [20, 20, 20]
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")


def test_half_lines_of_a_killed_process_are_passed_over(finished: Run, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    text = (finished.folder / "metrics.jsonl").read_text()
    metrics.write_text(text + '{"stage": "adapt", "ep' + '{"stage": "adapt", "epoch": 0}\n17\n')
    assert training_records(metrics) == training_records(finished.folder / "metrics.jsonl")
    with Reporter(metrics) as reporter:
        reporter.rewind("train", 7)
        reporter.stage("train", 20)
        reporter.advance(8, 20, step=7)
    assert [r["step"] for r in training_records(metrics)] == list(range(8))


def test_a_run_draws_itself(finished: Run) -> None:
    assert (finished.folder / "training.png").stat().st_size > 10_000
