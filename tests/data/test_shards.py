"""Token shards, and making them from text files."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard
from numpy.typing import NDArray

from pygolf._core import TokenShard
from pygolf.data import documents, shards
from pygolf.data.bundled import BUNDLED, bundled_texts
from pygolf.data.dataset import INDEX_NAME, TOKENIZER_NAME, DatasetIndex
from pygolf.data.find import find_shards, shard_digest, shard_digests
from pygolf.data.shard_file import ShardWriter
from pygolf.data.shards import shard_text, write_shard
from pygolf.data.tokenizer import Tokenizer
from pygolf.errors import DataError, FormatError, IoError

MODEL = BUNDLED / TOKENIZER_NAME
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def write_txt(path: Path, texts: list[str]) -> Path:
    path.write_bytes("\n\x1e\n".join(texts).encode())
    return path


def tokens_of(folder: Path, split: str) -> NDArray[np.uint16]:
    return np.concatenate([TokenShard(str(path)).tokens for path in sorted(folder.glob(f"{split}_*.bin"))])


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "corpus.jsonl", bundled_texts("val"))


def test_layout_of_a_shard(tmp_path: Path) -> None:
    write_shard(tmp_path / "train_0.bin", np.array([1, 0x1234, 0xFFFF]))
    header = bytes([0x88, 0xD8, 0x34, 0x01, 1, 0, 0, 0, 3, 0, 0, 0]) + bytes(1012)
    assert (tmp_path / "train_0.bin").read_bytes() == header + bytes([1, 0, 0x34, 0x12, 0xFF, 0xFF])
    assert TokenShard(str(tmp_path / "train_0.bin")).tokens.tolist() == [1, 0x1234, 0xFFFF]
    assert [path.name for path in tmp_path.iterdir()] == ["train_0.bin"]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [([], "0 tokens"), ([-1], "ids from -1"), ([65536], "to 65536"), ([1.5], "float64"), ([[1]], r"\[1, 1\]")],
)
def test_tokens_that_no_shard_can_hold(tmp_path: Path, tokens: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_shard(tmp_path / "t.bin", np.array(tokens, dtype=None if tokens else np.uint16))
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_the_old_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train_0.bin"
    write_shard(path, np.arange(1, 9))

    def full(writer: ShardWriter, tokens: NDArray[np.uint16]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardWriter, "write", full)
    with pytest.raises(IoError, match=r"train_0\.bin: No space left"):
        write_shard(path, np.arange(5))
    assert TokenShard(str(path)).token_count == 8
    assert [file.name for file in tmp_path.iterdir()] == ["train_0.bin"]


def test_file_that_was_cut_while_it_grew_is_no_shard(tmp_path: Path) -> None:
    shard = ShardWriter(tmp_path / "train_0.bin")
    shard.write(np.arange(100, dtype=np.uint16))
    shard.abandon()
    with pytest.raises(FormatError):
        TokenShard(str(tmp_path / "train_0.bin"))


def test_find_shards(tmp_path: Path) -> None:
    for name in ("fineweb_train_000010.bin", "fineweb_train_000002.bin", "fineweb_val_000000.bin", "train_1.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in find_shards(tmp_path, "train")] == [
        "fineweb_train_000002.bin",
        "fineweb_train_000010.bin",
    ]
    assert [path.name for path in find_shards(tmp_path, "val")] == ["fineweb_val_000000.bin"]


def test_find_shards_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none does not exist; make one with 'pygolf shard'"):
        find_shards(tmp_path / "none", "train")
    with pytest.raises(DataError, match="it is empty"):
        find_shards(tmp_path, "val")
    (tmp_path / "val_0.bin").touch()
    with pytest.raises(DataError, match=r"no shard named \*train_\*\.bin \(it holds val_0\.bin\)"):
        find_shards(tmp_path, "train")
    with pytest.raises(DataError, match="is a file"):
        find_shards(tmp_path / "val_0.bin", "val")


def test_digest_is_of_the_tokens_alone(tmp_path: Path) -> None:
    tokens = np.arange(1000, dtype="<u2")
    for name in ("a.bin", "b.bin"):
        write_shard(tmp_path / name, tokens)
    changed = bytearray((tmp_path / "b.bin").read_bytes())
    changed[500] = 1  # a header word that nothing reads
    (tmp_path / "b.bin").write_bytes(changed)
    write_shard(tmp_path / "c.bin", tokens[::-1])
    expected = hashlib.sha256(tokens.tobytes()).hexdigest()
    assert shard_digest(tmp_path / "a.bin") == expected
    a, c, b = shard_digests([tmp_path / "a.bin", tmp_path / "c.bin", tmp_path / "b.bin"])
    assert a == b == expected != c


def test_folder_holds_every_document_in_order(tmp_path: Path) -> None:
    first, second = bundled_texts("val")[:8], bundled_texts("val")[8:11]
    held_out = bundled_texts("train")[:4]
    index = shard_text(
        [write_jsonl(tmp_path / "a.jsonl", first), write_txt(tmp_path / "b.txt", second)],
        tmp_path / "out",
        tokenizer=MODEL,
        val_inputs=[write_txt(tmp_path / "val.txt", held_out)],
        shard_tokens=5000,
    )
    tokenizer = Tokenizer(tmp_path / "out" / TOKENIZER_NAME)
    train, val = tokenizer.encode_documents([*first, *second]), tokenizer.encode_documents(held_out)
    np.testing.assert_array_equal(tokens_of(tmp_path / "out", "train"), train)
    np.testing.assert_array_equal(tokens_of(tmp_path / "out", "val"), val)
    sizes = [entry.tokens for entry in index.shards if entry.split == "train"]
    assert sizes == [5000] * (train.size // 5000) + [train.size % 5000]
    assert (index.documents("train"), index.documents("val")) == (11, 4)
    assert (index.tokens("train"), index.tokens("val")) == (train.size, val.size)
    assert index.tokenizer_sha256 == Tokenizer(MODEL).digest
    paths = [tmp_path / "out" / entry.file for entry in index.shards]
    assert shard_digests(paths) == [entry.sha256 for entry in index.shards]
    assert index.counts["text_bytes"] == sum(len(text.encode()) for text in [*first, *second, *held_out])
    assert DatasetIndex.read(tmp_path / "out") == index
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        INDEX_NAME,
        TOKENIZER_NAME,
        *(path.name for path in paths),
    }


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.xz", ".jsonl.zst", ".txt"])
def test_compression_and_format_do_not_matter(tmp_path: Path, corpus: Path, suffix: str) -> None:
    other = tmp_path / f"other{suffix}"
    if suffix == ".txt":
        write_txt(other, bundled_texts("val"))
    else:
        other.write_bytes(COMPRESSORS[Path(suffix).suffix](corpus.read_bytes()))
    made = [
        shard_text([path], tmp_path / path.name.replace(".", "_"), tokenizer=MODEL, val_fraction=0.3)
        for path in (corpus, other)
    ]
    assert made[0].shards == made[1].shards


def test_split_depends_on_each_text_alone(tmp_path: Path, corpus: Path) -> None:
    texts = bundled_texts("val")
    twice = write_jsonl(tmp_path / "twice.jsonl", [*reversed(texts), *texts])
    once = shard_text([corpus], tmp_path / "once", tokenizer=MODEL, val_fraction=0.3)
    both = shard_text([twice], tmp_path / "both", tokenizer=MODEL, val_fraction=0.3)
    assert 4 <= once.documents("val") <= 22  # 43 documents
    assert both.documents("val") == 2 * once.documents("val")
    more = shard_text([corpus], tmp_path / "more", tokenizer=MODEL, val_fraction=0.6)
    tokenizer = Tokenizer(MODEL)
    documents_in = [
        set(tokenizer.decode(part) for part in np.split(tokens, np.flatnonzero(tokens == 1)[1:]))
        for tokens in (tokens_of(tmp_path / "once", "val"), tokens_of(tmp_path / "more", "val"))
    ]
    assert documents_in[0] < documents_in[1] <= set(texts)
    assert more.documents("train") + more.documents("val") == len(texts)


def test_workers_do_not_change_a_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_BATCH_BYTES", 10_000)
    source = write_jsonl(tmp_path / "a.jsonl", bundled_texts("val"))
    for workers in (1, 2):
        shard_text([source], tmp_path / str(workers), vocab_size=600, val_fraction=0.2, workers=workers)
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert len(names) == 4
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_worker_error_reaches_the_caller(tmp_path: Path) -> None:
    broken = tmp_path / "a.jsonl"
    broken.write_text('{"text": "fine"}\n{"text": \n', encoding="utf-8")
    with pytest.raises(DataError, match="line 2"):
        shard_text([broken], tmp_path / "out", tokenizer=MODEL, strict=True, workers=2)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_tokenizer_sees_no_validation_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", bundled_texts("val"))
    val = write_txt(tmp_path / "val.txt", ["ზღვა " * 5000])
    made = [
        shard_text([train], tmp_path / name, vocab_size=600, val_inputs=[val], val_fraction=0.5) for name in ("a", "b")
    ]
    piece_count = len(Tokenizer(tmp_path / "a" / TOKENIZER_NAME).encode("ზ"))
    assert piece_count == 3  # bytes: the letter is no piece
    assert made[0].tokenizer_sha256 == made[1].tokenizer_sha256
    monkeypatch.setattr(shards, "TOKENIZER_SAMPLE_BYTES", 100_000)
    sampled = shard_text([train], tmp_path / "c", vocab_size=600, val_inputs=[val])
    backwards = write_jsonl(tmp_path / "backwards.jsonl", bundled_texts("val")[::-1])
    again = shard_text([backwards], tmp_path / "d", vocab_size=600, val_inputs=[val])
    assert sampled.tokenizer_sha256 == again.tokenizer_sha256 != made[0].tokenizer_sha256


def test_what_was_wrong_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 1000)
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a b"}\n{"text": ""}\n{"x": 1}\n{"text": "\xff"}\n')
    (tmp_path / "b.txt").write_bytes(b"word " * 500 + b"\n\x1e\n\n\x1e\nend")
    index = shard_text([tmp_path / "a.jsonl", tmp_path / "b.txt"], tmp_path / "out", tokenizer=MODEL, val_fraction=0.5)
    assert index.counts == {
        "documents": 6,
        "text_bytes": 3 + 3 + 2500 + 3,
        "empty": 2,
        "cut": 2,
        "bad_utf8": 1,
        "broken_lines": 1,
    }
    tokens = np.concatenate([tokens_of(tmp_path / "out", split) for split in ("train", "val")])
    assert np.count_nonzero(tokens == 1) == 6
    assert index.documents("train") + index.documents("val") == 6


def test_field_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "hello", "text": 1}\n', encoding="utf-8")
    shard_text([tmp_path / "a.jsonl"], tmp_path / "out", tokenizer=MODEL, val_fraction=0, text_field="body")
    assert Tokenizer(MODEL).decode(tokens_of(tmp_path / "out", "train")) == "hello"


def test_progress_goes_up_to_the_size_of_the_inputs(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_BATCH_BYTES", 10_000)
    calls: list[tuple[str, int, int]] = []
    shard_text([corpus, corpus], tmp_path / "out", vocab_size=600, progress=lambda *call: calls.append(call))
    total = 2 * corpus.stat().st_size
    for stage in ("tokenizer", "shards"):
        done = [call[1] for call in calls if call[0] == stage]
        assert len(done) > 10
        assert done == sorted(done)
        assert done[-1] == total
    assert {call[2] for call in calls} == {total}


def test_a_folder_in_the_way(tmp_path: Path, corpus: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    shard_text([corpus], out, tokenizer=MODEL, val_fraction=0.3)
    before = (out / INDEX_NAME).read_bytes()
    with pytest.raises(DataError, match="is not empty"):
        shard_text([corpus], out, tokenizer=MODEL, val_fraction=0.6)
    assert (out / INDEX_NAME).read_bytes() == before
    shard_text([corpus], out, tokenizer=MODEL, val_fraction=0.6, overwrite=True)
    assert (out / INDEX_NAME).read_bytes() != before
    (out / INDEX_NAME).unlink()
    with pytest.raises(DataError, match=r"no index\.json, so pygolf did not make it"):
        shard_text([corpus], out, tokenizer=MODEL, overwrite=True)
    with pytest.raises(DataError, match="is a file"):
        shard_text([corpus], corpus, tokenizer=MODEL, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "out"]


def test_failure_leaves_the_old_folder(tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    shard_text([corpus], out, tokenizer=MODEL, val_fraction=0.3)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(writer: ShardWriter, tokens: NDArray[np.uint16]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardWriter, "write", full)
    with pytest.raises(IoError, match="out: No space left on device"):
        shard_text([corpus], out, tokenizer=MODEL, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "out"]


def test_an_empty_split_is_an_error(tmp_path: Path) -> None:
    one = write_txt(tmp_path / "one.txt", ["a single document"])
    with pytest.raises(DataError, match="no document for validation among 1 documents; raise val_fraction"):
        shard_text([one], tmp_path / "out", tokenizer=MODEL, val_fraction=0.0001)
    with pytest.raises(DataError, match="no document for training among 1 documents"):
        shard_text([one], tmp_path / "out", tokenizer=MODEL, val_fraction=0.9999)
    empty = write_txt(tmp_path / "empty.txt", [])
    with pytest.raises(DataError, match="no document for training among 0"):
        shard_text([empty], tmp_path / "out", tokenizer=MODEL, val_fraction=0)
    with pytest.raises(DataError, match="no input files"):
        shard_text([], tmp_path / "out", tokenizer=MODEL)
    assert not (tmp_path / "out").exists()


def test_validation_files_alone(tmp_path: Path, corpus: Path) -> None:
    index = shard_text([], tmp_path / "out", tokenizer=MODEL, val_inputs=[corpus])
    assert (index.documents("train"), index.documents("val")) == (0, 43)


@pytest.mark.parametrize(
    "setting", [{"val_fraction": 1.0}, {"val_fraction": -0.1}, {"shard_tokens": 0}, {"workers": -1}]
)
def test_settings_out_of_range(tmp_path: Path, corpus: Path, setting: dict[str, float]) -> None:
    with pytest.raises(DataError, match=f"{next(iter(setting))} is {next(iter(setting.values()))}"):
        shard_text([corpus], tmp_path / "out", **setting)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": 2}', '{"format": 1, "shards": [{}], "inputs": []}'])
def test_index_that_is_broken(tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX_NAME).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"index\.json"):
        DatasetIndex.read(tmp_path)
