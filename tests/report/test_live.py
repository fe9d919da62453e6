"""Live views: what they get to see, and that nothing is imported for a run without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pygolf.errors import ConfigError
from pygolf.live import open_live
from pygolf.progress import Reporter


def report_steps(kind: Any, folder: Path) -> None:
    with Reporter(folder / "metrics.jsonl") as reporter:
        reporter.show_live(open_live(kind, folder, {"seed": 3}))
        reporter.stage("train", 2)
        for step in range(2):
            reporter.advance(step + 1, 2, step=step, loss=3.0 - step, device="cpu")
        reporter.stage("adapt", 1)
        reporter.advance(1, 1, epoch=0, loss=1.5)


def test_tensorboard_shows_the_numbers_of_every_stage(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    report_steps("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["scalars"] == ["train/loss", "adapt/loss"]
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(0, 3.0), (1, 2.0)]


def test_wandb_gets_records_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    run = SimpleNamespace(
        log=calls.append, define_metric=lambda *a, **k: calls.append((a, k)), finish=lambda: calls.append("finish")
    )
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **options: calls.append(options) or run))
    report_steps("wandb", tmp_path)
    assert calls[0] == {"project": "pygolf", "name": tmp_path.name, "dir": str(tmp_path), "config": {"seed": 3}}
    logged = [call for call in calls if isinstance(call, dict)][1:]
    assert logged[1] == {"train/step": 1, "train/loss": 2.0}
    assert logged[2] == {"adapt/epoch": 0, "adapt/loss": 1.5}
    assert calls[-1] == "finish"


@pytest.mark.parametrize(("kind", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_missing_package_is_named_with_its_extra(
    kind: Any, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"pip install 'pygolf\[{kind}\]'"):
        open_live(kind, tmp_path, {})


def test_nothing_is_imported_unless_asked_for() -> None:
    code = """
import sys
from pathlib import Path
import pygolf.cli, pygolf.progress, pygolf.data.shards
from pygolf.live import open_live
assert open_live("off", Path(), {}) is None
print([m for m in ("tensorboard", "torch.utils.tensorboard", "wandb", "pyarrow", "matplotlib") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
