"""Everything that a run folder says about itself, read once for the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pygolf._core import ArtifactReader
from pygolf.errors import DataError
from pygolf.files import read_json
from pygolf.progress import read_metrics
from pygolf.score.documents import DOCUMENTS_NAME, Documents, load_documents


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of the artifact: its name, weights and bytes."""

    name: str
    weights: int
    bytes: int


@dataclass(frozen=True)
class RunFiles:
    """A finished run. Parts that an older version did not write are empty."""

    folder: Path
    report: dict[str, Any]
    stages: dict[str, Any]
    """stages.json."""
    metrics: list[dict[str, Any]]
    tensors: list[StoredTensor]
    documents: Documents | None
    verify: dict[str, Any]
    """verify.json."""
    seeds: dict[int, float]
    """Seed -> bpb of this run and those beside it that `run --seeds` made with it."""

    @property
    def training(self) -> list[dict[str, Any]]:
        """The training steps of metrics.jsonl."""
        return [r for r in self.metrics if r.get("stage") == "train"]


def read_run(folder: Path) -> RunFiles:
    """Reads a run folder. Raises DataError if it has no report yet, and what a damaged artifact raises."""
    if not (folder / "report.json").is_file():
        raise DataError(f"{folder} has no report.json; finish the run first: 'pygolf run --resume {folder}'")
    report = dict(read_json(folder / "report.json"))
    return RunFiles(
        folder=folder,
        report=report,
        stages=_optional_json(folder / "stages.json"),
        metrics=read_metrics(folder / "metrics.jsonl"),
        tensors=_stored_tensors(folder / "model.golf"),
        documents=load_documents(folder) if (folder / DOCUMENTS_NAME).is_file() else None,
        verify=_optional_json(folder / "verify.json"),
        seeds=_seeds(folder, report),
    )


def _optional_json(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.is_file() else {}


def _stored_tensors(path: Path) -> list[StoredTensor]:
    if not path.is_file():
        return []
    reader = ArtifactReader(str(path))
    tensors = []
    for t in reader.tensors:
        weights = 1
        for size in t.shape:
            weights *= size
        tensors.append(StoredTensor(t.name, weights, t.stored_bytes))
    return tensors


def _seeds(folder: Path, report: dict[str, Any]) -> dict[int, float]:
    seeds = {int(report["seed"]): float(report["bpb"])}
    base = folder.resolve().name.removesuffix(f"-{report['seed']}")
    for path in folder.resolve().parent.glob(f"{base}-*/report.json"):
        other = read_json(path)
        if path.parent.name == f"{base}-{other['seed']}" and other["config"]["model"] == report["config"]["model"]:
            seeds[int(other["seed"])] = float(other["bpb"])
    return seeds
