"""The state of an unfinished training: one safetensors file, replaced whole. Any number of ranks can resume it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pygolf.tensors import load_tensors, save_tensors


@dataclass(frozen=True)
class Checkpoint:
    """Everything that training needs to go on exactly where it was."""

    step: int
    """Steps done."""
    seconds: float
    """Reading of the training clock."""
    loader: list[int]
    """State of the batch plan."""
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def checkpoint_path(folder: Path) -> Path:
    return folder / "checkpoint" / "state.safetensors"


def save_checkpoint(folder: Path, state: Checkpoint) -> None:
    """Replaces the run's checkpoint. Raises IoError, with the old one kept, if it cannot be written."""
    tensors = {f"weights/{k}": v for k, v in state.weights.items()}
    tensors |= {f"average/{k}": v for k, v in state.average.items()}
    tensors |= {f"optimizer/{k}": v for k, v in state.optimizer.items()}
    record = {"step": state.step, "seconds": state.seconds, "loader": state.loader}
    save_tensors(checkpoint_path(folder), tensors, record)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The run's checkpoint, None if there is none. Raises FormatError if it is damaged."""
    path = checkpoint_path(folder)
    if not path.exists():
        return None
    tensors, record = load_tensors(path)
    return Checkpoint(
        step=int(record["step"]),
        seconds=float(record["seconds"]),
        loader=[int(word) for word in record["loader"]],
        weights=_under(tensors, "weights/"),
        average=_under(tensors, "average/"),
        optimizer=_under(tensors, "optimizer/"),
    )


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
