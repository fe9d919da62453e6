"""What is in an artifact, as a table."""

from __future__ import annotations

import math

from rich.table import Table

from pygolf._core import ArtifactReader


def artifact_table(reader: ArtifactReader) -> Table:
    """Tensors with shape, encoding, codec, stored bytes and bits a weight; the file's total below."""
    table = Table(title=f"{reader.path}: {reader.file_bytes:,} bytes", title_style="bold")
    for name in ("tensor", "shape"):
        table.add_column(name, overflow="fold")
    for name in ("encoding", "codec"):
        table.add_column(name, no_wrap=True)
    for name in ("bytes", "bits a weight"):
        table.add_column(name, justify="right", no_wrap=True)
    weights = 0
    for t in reader.tensors:
        count = math.prod(t.shape)
        weights += count
        kind = f"{t.bits}-bit rows" if t.encoding == "rows" else t.dtype
        shape = " x ".join(map(str, t.shape))
        table.add_row(t.name, shape, kind, t.codec, f"{t.stored_bytes:,}", f"{8 * t.stored_bytes / count:.3f}")
    table.add_section()
    table.add_row("all", f"{weights:,}", "", "", f"{reader.file_bytes:,}", f"{8 * reader.file_bytes / weights:.3f}")
    return table
