"""Pictures of a run, drawn from metrics.jsonl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pygolf.files import replacing
from pygolf.progress import read_metrics


def training_records(metrics: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that training wrote, in the order of the steps."""
    return [r for r in read_metrics(metrics) if r.get("stage") == "train"]


def draw_training(metrics: Path, picture: Path) -> None:
    """Writes a PNG of loss, gradient norm and learning rate against the training clock, whole or not at all.

    Without a record of the training (weights that came from elsewhere) there is nothing to draw.
    """
    records = training_records(metrics)
    if not records:
        return
    seconds = [r["seconds"] for r in records]
    figure = Figure(figsize=(8, 6), layout="constrained")
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    loss.plot(seconds, [r["loss"] for r in records], linewidth=1)
    loss.set_ylabel("training loss (nats a token)")
    loss.set_title(f"{picture.parent.name}: {len(records):,} steps")
    rate.plot(seconds, [r["lr_scale"] for r in records], label="learning rate (share of its peak)")
    rate.plot(seconds, [r["norm"] for r in records], label="gradient norm", linewidth=1)
    rate.set_xlabel("training clock (s)")
    rate.set_ylim(0, 1.5)
    rate.legend()
    for axes in (loss, rate):
        axes.grid(alpha=0.3)
    with replacing(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
