"""Reads text files into records and records into documents, with bounded memory.

A record is what a file holds in one piece, still as bytes: a line of a .jsonl file, a text between two separators
(newline, 0x1E, newline) of a .txt file (either may be compressed: .gz, .xz, .zst), or a row of a .parquet file. A
document is one UTF-8 text that gets a BOS token. One process finds the records, which is cheap; workers do the rest.
"""

from __future__ import annotations

import codecs
import gzip
import itertools
import json
import lzma
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import zstandard

from pygolf.data.parquet import parquet_texts
from pygolf.errors import DataError

SEPARATOR = b"\n\x1e\n"
MAX_DOCUMENT_BYTES = 1 << 20
"""Longer documents are cut, at a line end if there is one: memory stays bounded if a library is one file."""
MAX_LINE_BYTES = 64 << 20
"""A longer line of a .jsonl file is an error: the file is hardly jsonl."""

_CHUNK_BYTES = 1 << 20
_COMPRESSIONS = (".gz", ".xz", ".zst")
_NAMES = "a .txt or .jsonl file (plain, .gz, .xz or .zst) or a .parquet file"
_SURROGATE = re.compile("[\ud800-\udfff]")

Kind = Literal["txt", "jsonl", "parquet"]


class TextFile(NamedTuple):
    """An input file and what its name says of it."""

    path: Path
    kind: Kind
    compression: str
    """".gz", ".xz", ".zst" or ""."""


class Record(NamedTuple):
    """A line of a .jsonl file, a text of a .txt file or a row of a .parquet file."""

    number: int
    """Line, text or row number in its file, from 1."""
    data: bytes | None
    """None for a row without a text."""
    cut: bool = False
    """Whether the text goes on in the next record, because it was too long for one."""


@dataclass(slots=True)
class Counts:
    """What was met while reading; index.json keeps it."""

    documents: int = 0
    """Documents that became tokens."""
    text_bytes: int = 0
    """Their UTF-8 bytes."""
    empty: int = 0
    """Texts without a character, left out."""
    cut: int = 0
    """Places where a long text was cut in two documents."""
    bad_utf8: int = 0
    """Texts with bytes that are not UTF-8; those bytes became U+FFFD."""
    broken_lines: int = 0
    """Lines that are not JSON, and lines and rows without a text; left out."""

    def add(self, other: Counts) -> None:
        """Adds another count, field by field."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


def find_text_files(inputs: Sequence[Path]) -> list[TextFile]:
    """The text files that `inputs` name; folders stand for all text files in them, sorted by path.

    Raises DataError if an input is missing or has another suffix, or if a folder holds no text file.
    """
    files: list[TextFile] = []
    for path in map(Path, inputs):
        if path.is_dir():
            inside = [file for file in map(as_text_file, sorted(path.rglob("*"))) if file and file.path.is_file()]
            if not inside:
                raise DataError(f"{path} holds no .txt or .jsonl file (plain, .gz, .xz or .zst), and no .parquet file")
            files.extend(inside)
            continue
        file = as_text_file(path)
        if not path.is_file():
            raise DataError(f"{path} does not exist; name {_NAMES}, or a folder")
        if file is None:
            raise DataError(f"{path}: expected {_NAMES}")
        files.append(file)
    return files


def as_text_file(path: Path) -> TextFile | None:
    """What a path's name says of it; None if it does not end as a text file's does."""
    compression = path.suffix if path.suffix in _COMPRESSIONS else ""
    suffix = path.with_suffix("").suffix if compression else path.suffix
    if suffix == ".txt":
        return TextFile(path, "txt", compression)
    if path.suffix == ".parquet":
        return TextFile(path, "parquet", "")
    return TextFile(path, "jsonl", compression) if suffix == ".jsonl" else None


def open_text_file(file: TextFile) -> BinaryIO:
    """The file as it is, for `read_records`. Raises DataError if it may not be read."""
    try:
        return file.path.open("rb")
    except OSError as error:
        raise _cannot_read(file, error) from error


def _cannot_read(file: TextFile, error: OSError) -> DataError:
    return DataError(f"{file.path}: cannot be read ({error.strerror}); check the file and its permissions")


def read_records(file: TextFile, raw: BinaryIO, field: str) -> Iterator[Record]:
    """Records of a file that is open as `raw` (whose position tells how far reading is); `field` is a Parquet column.

    Raises DataError if the compressed data is damaged or cut short, if a line is endless, or if the column is missing.
    """
    if file.kind == "parquet":
        yield from itertools.starmap(Record, enumerate(parquet_texts(file.path, raw, field), 1))
        return
    chunks = _without_byte_order_mark(_chunks(file.compression, raw))
    try:
        yield from _texts(chunks) if file.kind == "txt" else _lines(file.path, chunks)
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise DataError(
            f"{file.path}: compressed data is damaged or cut short ({error}); get the file again"
        ) from error
    except OSError as error:
        raise _cannot_read(file, error) from error


def documents_of(record: Record, source: TextFile, field: str, strict: bool, counts: Counts) -> list[bytes]:
    """The documents of a record, UTF-8 each: none if it is empty or broken, several if it is too long.

    Counts what it finds in `counts`. Raises DataError for a broken line or bad UTF-8 if `strict`.
    """
    text = None if record.data is None else record.data.decode("utf-8", "surrogateescape")  # bad: lone surrogates
    if source.kind == "jsonl" and text is not None:
        if not (record.data or b"").strip():
            return []
        text = _text_of_line(text, field)
    if text is None:
        problem = "has no" if source.kind == "parquet" else "is not a JSON object with a"
        _refuse_if(strict, source, record, f"{problem} text in {field!r}")
        counts.broken_lines += 1
        return []
    document, is_clean = _encode(text)
    if not is_clean:
        _refuse_if(strict, source, record, "is not UTF-8")
    documents = list(_cut(document))
    counts.documents += len(documents)
    counts.text_bytes += len(document)
    counts.empty += not documents
    counts.cut += record.cut + max(0, len(documents) - 1)
    counts.bad_utf8 += not is_clean
    return documents


def _refuse_if(strict: bool, source: TextFile, record: Record, problem: str) -> None:
    if strict:
        unit = {"jsonl": "line", "txt": "text", "parquet": "row"}[source.kind]
        raise DataError(f"{source.path}: {unit} {record.number} {problem}; mend or remove it, or do without strict")


def _text_of_line(line: str, field: str) -> str | None:
    try:
        text = json.loads(line)[field]
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return text if isinstance(text, str) else None


def _encode(text: str) -> tuple[bytes, bool]:
    """UTF-8 of a text, and whether it had no lone surrogate (each becomes U+FFFD)."""
    try:
        return text.encode(), True
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text).encode(), False


def _cut(document: bytes) -> Iterator[bytes]:
    while len(document) > MAX_DOCUMENT_BYTES:
        point = _cut_point(document)
        yield document[:point]
        document = document[point:]
    if document:
        yield document


def _cut_point(data: bytes) -> int:
    """Where to cut what is too long: before the last line end of its second half, else between two characters."""
    # Before, not after: a separator of which only the first bytes are read stays whole.
    line_end = data.rfind(b"\n", MAX_DOCUMENT_BYTES // 2, MAX_DOCUMENT_BYTES)
    if line_end > 0:
        return line_end
    nearest = range(MAX_DOCUMENT_BYTES, MAX_DOCUMENT_BYTES - 4, -1)
    return next((point for point in nearest if data[point] & 0xC0 != 0x80), MAX_DOCUMENT_BYTES)


def _texts(chunks: Iterator[bytes]) -> Iterator[Record]:
    number, rest = 1, b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(SEPARATOR)
        for text in whole:
            yield Record(number, text)
            number += 1
        while len(rest) > MAX_DOCUMENT_BYTES:
            point = _cut_point(rest)
            yield Record(number, rest[:point], cut=True)
            rest = rest[point:]
    if rest:
        yield Record(number, rest)


def _lines(path: Path, chunks: Iterator[bytes]) -> Iterator[Record]:
    number, rest = 1, b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield Record(number, line)
            number += 1
        if len(rest) > MAX_LINE_BYTES:
            raise DataError(f"{path}: line {number} is longer than {MAX_LINE_BYTES} bytes; is this a .jsonl file?")
    if rest:
        yield Record(number, rest)


def _chunks(compression: str, raw: BinaryIO) -> Iterator[bytes]:
    """Decompressed bytes of an open file, about a MiB at a time."""
    if compression == ".zst":
        yield from _zstd_chunks(raw)
        return
    stream = _decompressed(compression, raw)
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk


def _decompressed(compression: str, raw: BinaryIO) -> BinaryIO | gzip.GzipFile | lzma.LZMAFile:
    if compression == ".gz":
        return gzip.GzipFile(fileobj=raw)
    return lzma.LZMAFile(raw) if compression == ".xz" else raw


def _zstd_chunks(raw: BinaryIO) -> Iterator[bytes]:
    # zstandard's own reader takes a file that was cut short for a whole one.
    decoder = None
    while block := raw.read(_CHUNK_BYTES // 8):
        while block:
            if decoder is None:
                decoder = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
            yield decoder.decompress(block)
            block = decoder.unused_data if decoder.eof else b""
            decoder = None if decoder.eof else decoder
    if decoder is not None:
        raise EOFError("the last frame has no end")


def _without_byte_order_mark(chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield next(chunks, b"").removeprefix(codecs.BOM_UTF8)
    yield from chunks
