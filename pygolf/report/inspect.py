"""What is in an artifact, as a table."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from pygolf._core import ArtifactReader, TensorInfo

COLUMNS = {"tensor": "left", "shape": "left", "encoding": "left", "codec": "left"} | dict.fromkeys(
    ("bytes", "bits a weight", "bound"), "right"
)
CLASSES = 24  # of a third of an octave each, the first one ends at a spread of 1/6 code


def artifact_table(reader: ArtifactReader) -> Table:
    """Tensors with shape, encoding, codec, stored bytes, bits a weight, and the entropy bound of their codes.

    The bound is `class_entropy_bytes` in bits a weight. Rows at the end sum up the sections of codes alone, which is
    what the bound bounds, and the file. Raises FormatError if codes are damaged.
    """
    table = Table(title=f"{reader.path}: {reader.file_bytes:,} bytes", title_style="bold")
    for name, side in COLUMNS.items():
        fold = name in ("tensor", "shape")
        table.add_column(name, justify="right" if side == "right" else "left", overflow="fold", no_wrap=not fold)
    weights, coded, code_bytes, bounds = 0, 0, 0, 0.0
    for t in reader.tensors:
        count = math.prod(t.shape)
        weights += count
        bound = None
        if t.encoding != "dense":
            bound = class_entropy_bytes(reader.codes(t.name), quantizers(reader, t))
            coded, code_bytes, bounds = coded + count, code_bytes + t.sections[-1][3], bounds + bound
        shape = " x ".join(map(str, t.shape))
        table.add_row(t.name, shape, _kind(t), t.codec, *_sizes(t.stored_bytes, count, bound))
    table.add_section()
    if coded:
        table.add_row("codes of all", f"{coded:,}", "", "", *_sizes(code_bytes, coded, bounds))
    table.add_row("file", f"{weights:,}", "", "", *_sizes(reader.file_bytes, weights, None))
    return table


def class_entropy_bytes(codes_RC: NDArray[np.int16], quantizers_RC: NDArray[np.int64]) -> float:
    """Bytes that codes [R, C] would take if the distribution in each of 24 classes were known and cost nothing.

    A class holds the codes of one quantizer whose spread, (spread of the row) x (spread of the column), lies in the
    same third of an octave, and its entropy is that of the codes it has, each by itself (order 0). A spread is a mean
    distance from the middle of the quantizer's codes: 0, or -1/2 for the odd one of a trellis. Where a tensor has few
    codes for so many classes, the bound is too low to be reached.
    """
    sizes_RC = np.abs(codes_RC + quantizers_RC / np.float32(2))
    rows_R = np.maximum(sizes_RC.mean(1), 1e-6)
    columns_C = np.maximum((sizes_RC / rows_R[:, None]).mean(0), 1e-6)
    octaves_RC = np.log2(rows_R, dtype=np.float32)[:, None] + np.log2(columns_C, dtype=np.float32)
    classes_RC = np.clip(3 * (octaves_RC + 3), 0, CLASSES - 1).astype(np.int64)
    lowest, span = int(codes_RC.min()), int(np.ptp(codes_RC.astype(np.int32))) + 1
    cells_RC = (2 * classes_RC + quantizers_RC) * span + (codes_RC - np.int64(lowest))
    counts = np.bincount(cells_RC.ravel(), minlength=2 * CLASSES * span).reshape(-1, span).astype(float)
    totals = np.broadcast_to(counts.sum(1, keepdims=True), counts.shape)
    seen = counts > 0
    return float((counts[seen] * np.log2(totals[seen] / counts[seen])).sum() / 8)


def quantizers(reader: ArtifactReader, tensor: TensorInfo) -> NDArray[np.int64]:
    """0 or 1 for each code [R, C] of a tensor: which quantizer of the trellis it belongs to; 0 without one."""
    codes_RC = reader.codes(tensor.name).astype(np.int64)
    if tensor.states in (None, 1) or tensor.step is None:
        return np.zeros_like(codes_RC)
    logs_RC = reader.row_logs(tensor.name)[:, None].astype(np.int64) + reader.col_logs(tensor.name)
    levels_RC = reader.dequantize(tensor.name) / (tensor.step * np.exp2(logs_RC / 16))
    return np.rint(levels_RC).astype(np.int64) - 2 * codes_RC


def _kind(tensor: TensorInfo) -> str:
    if tensor.encoding == "rows":
        return f"{tensor.bits}-bit rows"
    if tensor.encoding == "factors":
        return "factors" if tensor.states == 1 else f"factors, {tensor.states} states"
    return str(tensor.dtype)


def _sizes(stored: int, count: int, bound: float | None) -> tuple[str, str, str]:
    bits = "" if bound is None else f"{8 * bound / count:.3f}"
    return f"{stored:,}", f"{8 * stored / count:.3f}", bits
