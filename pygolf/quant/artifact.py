"""From a quantized model to the bytes of an artifact."""

from __future__ import annotations

import json
from typing import Any

import torch

from pygolf._core import ArtifactWriter
from pygolf.config import QuantConfig
from pygolf.quant.gptq import QuantizedModel
from pygolf.quant.rd import CodedModel


def artifact_bytes(
    model: QuantizedModel | CodedModel, manifest: dict[str, Any], config: QuantConfig, threads: int
) -> bytes:
    """The artifact with all tensors of the model."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    writer = ArtifactWriter(text, zstd_level=config.zstd_level)
    model.add_to(writer, config)
    for name, vector in model.vectors.items():
        dtype = "float16" if vector.dtype == torch.float16 else "float32"
        writer.add_dense(name, vector.reshape(vector.shape or (1,)).contiguous().numpy(), dtype=dtype)
    return bytes(writer.serialize(threads=threads))
