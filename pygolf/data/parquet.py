"""Texts of .parquet files, read a part of a row group at a time. Needs pyarrow (`pip install 'pygolf[parquet]'`)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from pygolf.errors import DataError

_ROWS = 256  # at once: few enough that long documents do not fill the memory


def parquet_texts(path: Path, raw: BinaryIO, column: str) -> Iterator[bytes | None]:
    """The texts of a column, UTF-8 as they are stored; None for a row without one.

    Raises DataError if pyarrow is not installed, the file is damaged, or the column is missing or holds no text.
    """
    arrow, parquet = _pyarrow(path)
    try:
        file = parquet.ParquetFile(raw)
        _check_column(arrow, path, file.schema_arrow, column)
        for batch in file.iter_batches(batch_size=_ROWS, columns=[column]):
            # As bytes: text that is not UTF-8 is counted by the reader, not an error here.
            yield from batch.column(0).cast(arrow.large_binary()).to_pylist()
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged or no Parquet file ({error}); get the file again") from error


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise DataError(
            f"{path}: reading Parquet needs pyarrow, which is not installed ({error}); pip install 'pygolf[parquet]'"
        ) from None


def _check_column(arrow: Any, path: Path, schema: Any, column: str) -> None:
    if column not in schema.names:
        raise DataError(f"{path} has no column {column!r}; it has {', '.join(schema.names)}: name one (text_field)")
    kind = schema.field(column).type
    if not (arrow.types.is_large_string(kind) or arrow.types.is_string(kind) or arrow.types.is_binary(kind)):
        raise DataError(f"{path}: column {column!r} is {kind}, expected a string")
