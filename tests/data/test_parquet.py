"""Parquet files become the same shards as the same texts in other formats, a part of a row group at a time."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from pygolf.data.bundled import BUNDLED, bundled_texts
from pygolf.data.dataset import TOKENIZER_NAME
from pygolf.data.parquet import parquet_texts
from pygolf.data.shards import shard_text
from pygolf.errors import DataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
MODEL = BUNDLED / TOKENIZER_NAME


def write(path: Path, texts: Any, column: str = "text", rows: int = 7) -> Path:
    """A Parquet file with row groups of `rows` rows and a column that nobody asks for."""
    table = pa.table({"id": list(range(len(texts))), column: texts})
    pq.write_table(table, path, row_group_size=rows)
    return path


def shard(path: Path, out: Path, **options: Any) -> Any:
    return shard_text([path], out, tokenizer=MODEL, val_fraction=0.2, workers=1, **options)


def test_parquet_makes_the_same_shards_as_text(tmp_path: Path) -> None:
    texts = bundled_texts("val")
    (tmp_path / "t.txt").write_bytes("\n\x1e\n".join(texts).encode())
    shard(tmp_path / "t.txt", tmp_path / "from_txt")
    for folder, column in (("a", pa.array(texts)), ("b", pa.array(texts, pa.large_string()))):
        calls: list[Any] = []
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "t.parquet", column)
        shard(tmp_path / folder, tmp_path / f"from_{folder}", progress=lambda *call, calls=calls: calls.append(call))
        for name in ("train_000000.bin", "val_000000.bin"):
            assert (tmp_path / f"from_{folder}" / name).read_bytes() == (tmp_path / "from_txt" / name).read_bytes()
        assert 0 < calls[-1][1] <= calls[-1][2] == (tmp_path / folder / "t.parquet").stat().st_size


def test_rows_without_text_and_bad_utf8_are_counted_or_fatal(tmp_path: Path) -> None:
    rows = [b"good one", None, b"bad \xff", b"", *(f"text {i}".encode() for i in range(40))]
    path = write(tmp_path / "t.parquet", pa.array(rows, pa.binary()), column="body")
    counts = shard(path, tmp_path / "out", text_field="body").counts
    assert (counts["documents"], counts["broken_lines"], counts["bad_utf8"], counts["empty"]) == (42, 1, 1, 1)
    with pytest.raises(DataError, match="row 2 has no text in 'body'"):
        shard(path, tmp_path / "strict", text_field="body", strict=True)


@pytest.mark.parametrize(
    ("column", "message"), [("missing", "no column 'missing'; it has id, text"), ("id", "is int64, expected a string")]
)
def test_a_column_that_is_no_text(tmp_path: Path, column: str, message: str) -> None:
    path = write(tmp_path / "t.parquet", ["a", "b"])
    with path.open("rb") as raw, pytest.raises(DataError, match=message):
        list(parquet_texts(path, raw, column))


def test_damaged_files_are_errors(tmp_path: Path) -> None:
    whole = write(tmp_path / "t.parquet", bundled_texts("val")).read_bytes()
    for data in (b"", b"no parquet", whole[: len(whole) // 2], whole[:200] + bytes(3000) + whole[3200:]):
        with pytest.raises(DataError, match=r"t\.parquet: damaged or no Parquet file"):
            list(parquet_texts(Path("t.parquet"), io.BytesIO(data), "text"))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [f"{i:06d}" * 2000 for i in range(4000)], rows=100)  # 48 MB in 40 row groups
    pool = pa.default_memory_pool()
    before, most = pool.bytes_allocated(), 0
    with path.open("rb") as raw:
        for _ in parquet_texts(path, raw, "text"):
            most = max(most, pool.bytes_allocated() - before)
    assert 0 < most < 12e6


def test_pyarrow_is_only_needed_for_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.parquet", ["a"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'pygolf\[parquet\]'"):
        shard(path, tmp_path / "out")
