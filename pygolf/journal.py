"""What a run has done: stages.json, with what every stage read and when, and the manifest that follows from it.

The run's clock counts seconds of work since training began: training, adaptation, calibration and so on, without the
pauses between them. UTC times tell of the pauses.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import pygolf
from pygolf.config import RunConfig
from pygolf.data.tokenizer import Tokenizer
from pygolf.files import read_json, write_json
from pygolf.report.report import versions
from pygolf.runtime import Runtime
from pygolf.score.code_bytes import code_digest
from pygolf.score.provenance import TokenRange

STAGES = ("train", "adapt", "quantize", "score")


def utc_now() -> str:
    """The time as 2026-01-31T12:00:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Journal:
    """stages.json of a run folder; only rank 0 writes."""

    def __init__(self, folder: Path, runtime: Runtime) -> None:
        self._path, self._runtime = folder / "stages.json", runtime
        self._begun_path = folder / "begun.json"

    @property
    def records(self) -> dict[str, Any]:
        """What each finished stage found, which tokens it read and when."""
        return dict(read_json(self._path)) if self._path.exists() else {}

    def finish(self, name: str, record: dict[str, Any]) -> None:
        """Marks a stage as done; stages behind it are no longer."""
        if self._runtime.is_main:
            write_json(self._path, {**self._before(name), name: record})
        self._runtime.barrier()

    def training_begun(self, resumed: bool) -> str:
        """UTC time at which training began; an interrupted one keeps its first."""
        if self._runtime.is_main and not (resumed and self._begun_path.exists()):
            write_json(self._begun_path, {"train": utc_now()})
        return str(read_json(self._begun_path)["train"]) if self._runtime.is_main else utc_now()

    def reading(
        self, name: str, label: str, seconds: float, begun: str, ranges: Sequence[TokenRange]
    ) -> dict[str, Any]:
        """The record of what was read in a stage, over so many seconds of work from its start.

        Args:
            name: the stage.
            label: what the tokens were for: train, adapt, calibrate or score.
            seconds: work on the run's clock.
            begun: UTC time of the first token.
            ranges: what was read.
        """
        start = sum(s for r in self._before(name).values() for s in r["seconds"].values())
        return {
            "stage": label,
            "clock": [round(start, 3), round(start + seconds, 3)],
            "utc": [begun, utc_now()],
            "reads": [r.to_dict() for r in ranges],
            **self._place,
        }

    def _before(self, name: str) -> dict[str, Any]:
        return {s: r for s, r in self.records.items() if STAGES.index(s) < STAGES.index(name)}

    @cached_property
    def _place(self) -> dict[str, Any]:
        """The code and the machine at work."""
        device = self._runtime.device
        named = torch.cuda.get_device_name(device) if device.type == "cuda" else versions()["device"]
        return {
            "code_sha256": code_digest(),
            "versions": versions(),
            "device": f"{device.type}: {named}",
            "ranks": self._runtime.world_size,
        }


def build_manifest(
    config: RunConfig, tokenizer: Tokenizer, records: dict[str, Any], calibration: dict[str, Any]
) -> dict[str, Any]:
    """The artifact's manifest: the model, and how and from which tokens it came to be."""
    sections = config.sections()
    readings = [records["train"]["reading"], records["adapt"]["reading"], calibration]
    return {
        "pygolf": pygolf.__version__,
        "model": sections["model"],
        "tokenizer": {"sha256": tokenizer.digest, "vocab_size": tokenizer.vocab_size},
        "provenance": [r for reading in readings for r in reading["reads"]],
        "stages": [{k: v for k, v in reading.items() if k != "reads"} for reading in readings],
        "adapt_source": config.adapt.source,
        "training": records["train"]["training"],
        "config": {name: sections[name] for name in ("seed", "train", "adapt", "quant")},
    }
