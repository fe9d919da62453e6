"""A model from an artifact file: the file is the only source of its weights."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pygolf._core import ArtifactReader
from pygolf.config import ModelConfig
from pygolf.config_file import build_section
from pygolf.errors import ConfigError, FormatError
from pygolf.model.gpt import GPT, place
from pygolf.runtime import Runtime


@dataclass(frozen=True)
class LoadedArtifact:
    """The model of an artifact and what its manifest says."""

    model: GPT
    manifest: dict[str, Any]


def read_manifest(reader: ArtifactReader) -> dict[str, Any]:
    """The manifest as a dictionary. Raises FormatError if it is not one that pygolf writes."""
    try:
        manifest = json.loads(reader.manifest)
        missing = {"model", "tokenizer", "provenance"} - set(manifest)
    except (ValueError, TypeError) as error:
        raise FormatError(f"{reader.path}: the manifest is not a JSON object ({error})") from None
    if missing:
        raise FormatError(
            f"{reader.path}: the manifest lacks {', '.join(sorted(missing))}; it does not hold a pygolf model"
        )
    return dict(manifest)


def load_artifact(path: Path, runtime: Runtime) -> LoadedArtifact:
    """Opens, checks and decodes an artifact into a model that is ready to run.

    Raises IoError (no such file), FormatError and its kinds (damaged, newer version, not a pygolf model).
    """
    reader = ArtifactReader(str(path))
    manifest = read_manifest(reader)
    try:
        model = GPT(build_section(ModelConfig, manifest["model"], "model."))
    except (ConfigError, TypeError) as error:
        raise FormatError(f"{path}: the manifest's model cannot be built: {error}") from None
    _check_tensors(path, reader, model)
    names, parameters = zip(*model.named_parameters(), strict=True)
    with torch.no_grad(), ThreadPoolExecutor() as pool:  # decoding runs without the GIL
        for parameter, values in zip(parameters, pool.map(reader.dequantize, names), strict=True):
            parameter.copy_(torch.from_numpy(values).view(parameter.shape))
    return LoadedArtifact(place(model, runtime), manifest)


def _check_tensors(path: Path, reader: ArtifactReader, model: GPT) -> None:
    found = {t.name: tuple(t.shape) for t in reader.tensors}
    expected = {name: tuple(p.shape) or (1,) for name, p in model.named_parameters()}
    for name in sorted(set(found) | set(expected)):
        if found.get(name) != expected.get(name):
            raise FormatError(
                f"{path}: tensor {name} has shape {found.get(name)}, but the manifest's model expects "
                f"{expected.get(name)}"
            )
