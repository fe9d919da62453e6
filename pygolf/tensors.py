"""Tensors on disk as safetensors with a JSON record: checkpoints and the weights between stages. No pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pygolf.errors import FormatError, IoError
from pygolf.files import replacing


def save_tensors(path: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Writes tensors and a JSON record as one safetensors file, whole or not at all."""
    plain = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(plain, str(temporary), metadata={"pygolf": json.dumps(record)})
        except SafetensorError as error:
            raise IoError(f"cannot write {path}: {error}; free space or choose another folder") from None


def load_tensors(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and record of a file written by save_tensors. Raises FormatError or IoError."""
    if not path.is_file():
        raise IoError(f"{path} not found; run the stage that writes it first")
    try:
        with safe_open(str(path), framework="pt", device=device) as file:
            record = json.loads((file.metadata() or {})["pygolf"])
            return {name: file.get_tensor(name) for name in file.keys()}, record  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise FormatError(f"{path} is not a file that pygolf wrote, or it is damaged: {error!r}") from None
