"""Reading text files: separators, lines, compression, long and broken texts."""

from __future__ import annotations

import gzip
import io
import json
import lzma
from pathlib import Path

import pytest
import zstandard

from pygolf.data import documents
from pygolf.data.documents import Counts, Record, TextFile, documents_of, find_text_files, open_text_file, read_records
from pygolf.errors import DataError

COMPRESSORS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def records(name: str, data: bytes) -> list[Record]:
    (file,) = [documents.as_text_file(Path(name))]
    assert file is not None
    return list(read_records(file, io.BytesIO(data), "text"))


def read(name: str, data: bytes, *, strict: bool = False) -> tuple[list[str], Counts]:
    """Documents of a file with this name and content."""
    file = documents.as_text_file(Path(name))
    assert file is not None
    counts = Counts()
    texts = [
        document.decode()
        for record in read_records(file, io.BytesIO(data), "text")
        for document in documents_of(record, file, "text", strict, counts)
    ]
    return texts, counts


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_texts_between_separators(compression: str) -> None:
    data = COMPRESSORS[compression]("\ufefffirst\n\n\x1e\nsecond\x1e not alone\r\n\x1e\nthird\n\x1e\n".encode())
    assert read(f"a.txt{compression}", data)[0] == ["first\n", "second\x1e not alone\r", "third"]


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_lines_of_json(compression: str) -> None:
    lines = [json.dumps({"text": text, "id": 1}) for text in ("one\nline", "😀", "")] + ["", '{"text": "last"}']
    data = COMPRESSORS[compression]("\n".join(lines).encode())
    texts, counts = read(f"a.b.jsonl{compression}", data)
    assert texts == ["one\nline", "😀", "last"]
    assert counts == Counts(documents=3, text_bytes=16, empty=1)


def test_separator_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 6)
    texts, counts = read("a.txt", b"abc\n\x1e\nde\n\x1e\n\nlong text\n\x1e\nf")
    assert "".join(texts) == "abcde\nlong textf"
    assert {"abc", "de", "f"} <= set(texts)
    assert counts.documents == len(texts) == counts.cut + 4


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_long_text_is_cut_without_losing_a_character(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 50)
    text = "a line\nanother\n" * 20 + "漢字" * 60
    texts, counts = read(name, text.encode() if name == "a.txt" else json.dumps({"text": text}).encode())
    assert "".join(texts) == text
    assert max(len(part.encode()) for part in texts) <= 50
    assert min(len(part.encode()) for part in texts[:-1]) >= 25
    assert counts.cut == len(texts) - 1
    assert texts[0].endswith("another")


BROKEN_LINES = [b"{", b"[1, 2]", b'{"no": 1}', b'{"text": 5}', b'"text"', b"[" * 100_000, b"9" * 5000, b"null"]


@pytest.mark.parametrize("line", BROKEN_LINES)
def test_broken_line_is_counted_or_fatal(line: bytes) -> None:
    data = b'{"text": "good"}\n' + line + b'\n{"text": "also good"}\n'
    texts, counts = read("a.jsonl", data)
    assert texts == ["good", "also good"]
    assert (counts.broken_lines, counts.bad_utf8) == (1, 0)
    with pytest.raises(DataError, match=r"a\.jsonl: line 2 is not a JSON object with a text in 'text'"):
        read("a.jsonl", data, strict=True)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", b"a\xff\xfeb"),
        ("a.txt", b"a\xf0\x9fb"),
        ("a.jsonl", b'{"text": "a\xff\xffb"}'),
        ("a.jsonl", rb'{"text": "a\ud83d\udc00\ud83db"}'),
    ],
)
def test_bad_utf8_is_replaced_and_counted_or_fatal(name: str, data: bytes) -> None:
    (text,), counts = read(name, data)
    assert text.startswith("a")
    assert text.endswith("\ufffdb")
    assert counts.bad_utf8 == 1
    assert counts.text_bytes == len(text.encode())
    with pytest.raises(DataError, match="1 is not UTF-8"):
        read(name, data, strict=True)


@pytest.mark.parametrize("compression", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_compression(compression: str, damage: str) -> None:
    whole = bytearray(COMPRESSORS[compression](bytes(range(32, 127)) * 1000))
    if damage == "cut":
        del whole[-5:]
    else:
        whole[1] ^= 0xFF
    with pytest.raises(DataError, match=rf"a\.txt{compression}: compressed data is damaged or cut short"):
        records(f"a.txt{compression}", bytes(whole))


def test_several_frames_are_one_file() -> None:
    for compression in (".gz", ".xz", ".zst"):
        compress = COMPRESSORS[compression]
        assert read(f"a.txt{compression}", compress(b"one ") + compress(b"text"))[0] == ["one text"]


def test_endless_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(documents, "_CHUNK_BYTES", 100)
    with pytest.raises(DataError, match="line 2 is longer than 1000 bytes"):
        records("a.jsonl", b"{}\n" + b"x" * 2000)


def test_folders_stand_for_the_text_files_in_them(tmp_path: Path) -> None:
    for name in ("b.txt.gz", "a.jsonl", "sub/c.txt", "README.md", "d.txt.bz2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_text_files([tmp_path, tmp_path / "a.jsonl"])
    assert [(str(file.path.relative_to(tmp_path)), file.kind, file.compression) for file in found] == [
        ("a.jsonl", "jsonl", ""),
        ("b.txt.gz", "txt", ".gz"),
        ("sub/c.txt", "txt", ""),
        ("a.jsonl", "jsonl", ""),
    ]
    assert isinstance(found[0], TextFile)


def test_inputs_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.pdf").touch()
    with pytest.raises(DataError, match="does not exist"):
        find_text_files([tmp_path / "none.txt"])
    with pytest.raises(DataError, match=r"x\.pdf: expected a \.txt or \.jsonl file"):
        find_text_files([tmp_path / "x.pdf"])
    with pytest.raises(DataError, match="holds no"):
        find_text_files([tmp_path])
    with pytest.raises(DataError, match=r"gone\.txt: cannot be read \(No such file or directory\)"):
        open_text_file(TextFile(tmp_path / "gone.txt", "txt", ""))
