"""What a run says while it works: a live bar on a terminal, plain lines elsewhere, and metrics.jsonl."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pygolf.files import write_text
from pygolf.live import LiveView

PLAIN_SECONDS = 10.0


class Reporter:
    """Progress of the stages of one run. Silent on ranks other than 0. Use it as a context manager."""

    def __init__(self, metrics: Path | None = None, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._metrics_path = metrics if enabled else None
        self._metrics: IO[str] | None = None
        self._console = Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._live: LiveView | None = None
        self._stage = ""
        self._plain_at = 0.0

    def __enter__(self) -> Reporter:
        if self._metrics_path is not None:
            self._metrics_path.parent.mkdir(parents=True, exist_ok=True)
            self._metrics = self._metrics_path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self.end_stage()
        if self._metrics is not None:
            self._metrics.close()
        if self._live is not None:
            self._live.close()

    def show_live(self, view: LiveView | None) -> None:
        """Metrics go to this view too, which is closed at the end."""
        self._live = view

    def stage(self, name: str, total: float) -> None:
        """Begins a stage of `total` units."""
        self.end_stage()
        self._stage, self._plain_at = name, 0.0
        if self._enabled and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]{task.description:<10}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task(name, total=max(total, 1e-9), note="")

    def advance(self, done: float, total: float, note: str = "", **metrics: Any) -> None:
        """The stage has done `done` of `total`; `metrics` become a line of metrics.jsonl."""
        if metrics and self._metrics is not None:
            self._metrics.write(json.dumps({"stage": self._stage, **metrics}) + "\n")
            self._metrics.flush()
        if metrics and self._live is not None:
            self._live.record(self._stage, metrics)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=max(total, 1e-9), note=note)
        elif self._enabled and (done >= total or time.monotonic() - self._plain_at >= PLAIN_SECONDS):
            self._plain_at = time.monotonic()
            self._console.print(f"{self._stage:<10} {100 * done / max(total, 1e-9):3.0f} %  {note}", markup=False)

    def rewind(self, stage: str, step: int) -> None:
        """Drops the stage's records from `step` on: a resumed run writes them again."""
        if self._metrics_path is None or self._metrics is None:
            return
        kept = [r for r in read_metrics(self._metrics_path) if r.get("stage") != stage or r.get("step", -1) < step]
        self._metrics.close()
        write_text(self._metrics_path, "".join(json.dumps(record) + "\n" for record in kept))
        self._metrics = self._metrics_path.open("a", encoding="utf-8")

    def follow(self, stage: str, done: int, total: int) -> None:
        """Progress of a stage that names itself with every call."""
        if stage != self._stage:
            self.stage(stage, total)
        self.advance(done, total)

    def end_stage(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None

    def say(self, text: str) -> None:
        """One line for people."""
        if self._enabled:
            self._console.print(text, markup=False, soft_wrap=True)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl, without lines that a killed process left half written; none if there is no file."""
    records: list[dict[str, Any]] = []
    if not path.exists():
        return records
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            records.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            continue
    return records
