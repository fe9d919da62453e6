"""Live views of a run's metrics, beside metrics.jsonl: TensorBoard or Weights & Biases. Nothing of either is imported
before it is asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from pygolf.errors import ConfigError

LiveKind = Literal["off", "tensorboard", "wandb"]


class LiveView(Protocol):
    """Shows numbers while they are made."""

    def record(self, stage: str, values: dict[str, Any]) -> None:
        """Shows a record of metrics.jsonl; its `step` or `epoch` is the x axis."""

    def close(self) -> None:
        """Writes what is still under way."""


def open_live(kind: LiveKind, folder: Path, settings: dict[str, Any]) -> LiveView | None:
    """The live view of a run folder; `settings` are shown beside it where that is possible. None for "off".

    Raises ConfigError if its package is not installed.
    """
    if kind == "off":
        return None
    module = "torch.utils.tensorboard" if kind == "tensorboard" else kind
    try:
        package = import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"--live {kind} needs a package that is not installed ({error}); pip install 'pygolf[{kind}]'"
        ) from None
    if kind == "tensorboard":
        return _TensorBoard(package.SummaryWriter(log_dir=str(folder / "tensorboard")))
    return _WeightsAndBiases(package.init(project="pygolf", name=folder.name, dir=str(folder), config=settings))


class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def record(self, stage: str, values: dict[str, Any]) -> None:
        for name, value in _numbers(values).items():
            self._writer.add_scalar(f"{stage}/{name}", value, values.get("step", values.get("epoch", 0)))

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, run: Any) -> None:
        self._run = run
        # Each stage counts its own steps, and a resumed one goes back: W&B's own step can do neither.
        run.define_metric("train/*", step_metric="train/step")
        run.define_metric("adapt/*", step_metric="adapt/epoch")

    def record(self, stage: str, values: dict[str, Any]) -> None:
        shown = _numbers(values)
        shown.update((name, values[name]) for name in ("step", "epoch") if name in values)
        self._run.log({f"{stage}/{name}": value for name, value in shown.items()})

    def close(self) -> None:
        self._run.finish()


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    """The values to draw: numbers that are not the x axis."""
    return {k: v for k, v in values.items() if isinstance(v, int | float) and k not in ("step", "epoch")}
