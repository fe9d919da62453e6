"""From a quantized model to an artifact file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pygolf._core import ArtifactWriter
from pygolf.config import QuantConfig
from pygolf.quant.gptq import QuantizedModel


def artifact_writer(model: QuantizedModel, manifest: dict[str, Any], config: QuantConfig) -> ArtifactWriter:
    """All tensors of the model in an artifact that is not yet a file."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    writer = ArtifactWriter(text, zstd_level=config.zstd_level)
    for name, matrix in model.matrices.items():
        writer.add_rows(name, matrix.codes.numpy(), matrix.scales.numpy(), bits=matrix.bits, codec=config.codec)
    for name, vector in model.vectors.items():
        writer.add_dense(name, vector.reshape(vector.shape or (1,)).numpy(), dtype="float16")
    return writer


def packed_bytes(model: QuantizedModel, manifest: dict[str, Any], config: QuantConfig, threads: int) -> int:
    """Size of the artifact that `write_artifact` would write."""
    return len(artifact_writer(model, manifest, config).serialize(threads=threads))


def write_artifact(
    path: Path, model: QuantizedModel, manifest: dict[str, Any], config: QuantConfig, threads: int
) -> int:
    """Writes the artifact, whole or not at all; returns its bytes. Raises IoError (for one, if the disk is full)."""
    return int(artifact_writer(model, manifest, config).write(str(path), threads=threads))
