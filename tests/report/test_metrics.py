"""metrics.jsonl, as the report reads it and as a resumed run goes on with it."""

from __future__ import annotations

from pathlib import Path

from pygolf.pipeline import Run
from pygolf.progress import Reporter
from pygolf.report.run_files import read_run


def test_every_step_is_there(finished: Run) -> None:
    assert [r["step"] for r in read_run(finished.folder).training] == list(range(20))


def test_half_lines_of_a_killed_process_are_passed_over(full: Path) -> None:
    whole = read_run(full).metrics
    metrics = full / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"stage": "adapt", "ep' + '{"stage": "adapt", "epoch": 0}\n17\n')
    assert read_run(full).metrics == whole
    with Reporter(metrics) as reporter:
        reporter.rewind("train", 7)
        reporter.stage("train", 20)
        reporter.advance(8, 20, step=7)
    assert [r["step"] for r in read_run(full).training] == list(range(8))
