"""The bundled corpus, what is made of it, and the script that made it."""

from __future__ import annotations

import importlib.util
import json
import lzma
import multiprocessing
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import sentencepiece

from pygolf._core import TokenShard
from pygolf.data import bundled
from pygolf.data.bundled import BUNDLED, CORPUS_NAME, NOTICE_NAME, bundled_texts, materialize
from pygolf.data.compressors import compressor_bits_per_byte
from pygolf.data.dataset import INDEX_NAME, SPLITS, TOKENIZER_NAME, DatasetIndex
from pygolf.data.tokenizer import Tokenizer, train_tokenizer
from pygolf.errors import DataError

LICENSES = {
    "CC0-1.0 / US government work",
    "Public domain (author died before 1931)",
    "US government work (public domain)",
    "US public domain / CC0-1.0",
}
SCRIPT = Path(__file__).parents[2] / "scripts" / "make_bundled.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_bundled", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "make_bundled", module)
    spec.loader.exec_module(module)
    return module


def test_corpus_is_free_text_of_the_right_size() -> None:
    with lzma.open(BUNDLED / CORPUS_NAME, "rt", encoding="utf-8") as lines:
        values = [json.loads(line) for line in lines]
    size = {split: sum(len(v["text"].encode()) for v in values if v["split"] == split) for split in SPLITS}
    assert 4_000_000 <= sum(size.values()) <= 6_000_000
    assert 150_000 <= size["val"] <= 250_000
    assert {v["license"] for v in values} == LICENSES
    assert len({v["text"] for v in values}) == len(values)
    notice = (BUNDLED / NOTICE_NAME).read_text(encoding="utf-8")
    sources = {(v["source"], v["license"]) for v in values}
    assert all(f"- {source}: " in notice and license in notice for source, license in sources)
    for split in SPLITS:
        assert {v["source"] for v in values if v["split"] == split} == {source for source, _ in sources}
        assert bundled_texts(split) == [v["text"] for v in values if v["split"] == split]


def test_tokenizer_was_trained_on_the_training_part(tmp_path: Path) -> None:
    again = train_tokenizer(bundled_texts("train"), 1024, tmp_path / "t.model")
    pieces = [
        [processor.id_to_piece(i) for i in range(1024)]
        for path in (again.path, BUNDLED / TOKENIZER_NAME)
        for processor in [sentencepiece.SentencePieceProcessor(model_file=str(path))]
    ]
    assert pieces[0] == pieces[1]


def test_materialized_tokens_are_the_texts(tmp_path: Path) -> None:
    folder = materialize(tmp_path / "a" / "demo")
    tokenizer = Tokenizer(folder / TOKENIZER_NAME)
    index = DatasetIndex.read(folder)
    for split in SPLITS:
        texts = bundled_texts(split)
        tokens = TokenShard(str(folder / f"{split}_000000.bin")).tokens
        counted = tokenizer.token_bytes().target_bytes(tokens[:-1], tokens[1:]).sum()
        assert counted == sum(len(text.encode()) for text in texts)
        assert np.count_nonzero(tokens == tokenizer.bos_id) == index.documents(split) == len(texts)
    assert tokenizer.decode(tokens) == "".join(texts)  # val, the last


def test_materialize_keeps_what_is_whole_and_mends_what_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "bundled_texts", lambda split: bundled_texts("val"))  # quicker
    folder = materialize(tmp_path / "demo")
    shard = folder / "val_000000.bin"
    whole, made = shard.read_bytes(), shard.stat().st_ino
    assert materialize(folder) == folder
    assert shard.stat().st_ino == made
    for damage in (whole[:-2] + b"\xff\x00", whole[:-2]):
        shard.write_bytes(damage)
        materialize(folder)
        assert shard.read_bytes() == whole
    (folder / TOKENIZER_NAME).write_bytes(b"")
    materialize(folder)
    assert Tokenizer(folder / TOKENIZER_NAME).vocab_size == 1024
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_materialize_leaves_other_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(DataError, match="is not empty"):
        materialize(tmp_path)
    other = DatasetIndex(
        tokenizer_file="t", tokenizer_sha256="", vocab_size=1, shards=(), inputs=({"file": "mine.txt"},), counts={}
    )
    other.write(tmp_path)
    with pytest.raises(DataError, match="is not empty"):
        materialize(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [INDEX_NAME, "thesis.tex"]


def test_two_processes_may_materialize_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        folders = pool.map(materialize, [tmp_path / "demo"] * 2, chunksize=1)
    assert folders == [tmp_path / "demo"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_compressors_bracket_what_is_known() -> None:
    noise = np.random.default_rng(0).bytes(100_000)
    for text, low, high in ((noise, 8.0, 8.05), (b"abcd" * 25_000, 0.0, 0.05), (b"\x00\xff" + noise, 8.0, 8.05)):
        rates = compressor_bits_per_byte(text)
        assert set(rates) == {"xz -9", "zstd -19"}
        assert all(low < rate <= high for rate in rates.values())
    with pytest.raises(DataError, match="is empty"):
        compressor_bits_per_byte(b"")


def write_documents(path: Path, sources: dict[str, str]) -> Path:
    """20 documents of every source; about 45 kB of text each."""
    random = np.random.default_rng(1)
    words = ["alpha", "beta", "gamma", "delta", "omega", "naïve"]
    with lzma.open(path, "wt", encoding="utf-8") as stream:
        for source, license in sources.items():
            for i in range(20):
                text = f"{source} {i} " + " ".join(random.choice(words, 400))
                values = {"text": text, "source": source, "license": license, "origin": f"{source}/{i}.md"}
                stream.write(json.dumps(values) + "\n")
    return path


def test_script_takes_only_free_sources_evenly(
    tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {name: source.license for name, source in script.SOURCES.items()}
    documents = write_documents(tmp_path / "d.jsonl.xz", {**free, "PLOS": "CC-BY (see DOI)"})
    for name, value in (("TOTAL_BYTES", 100_000), ("VAL_BYTES", 20_000), ("VOCAB_SIZE", 290)):
        monkeypatch.setattr(script, name, value)
    for out in ("a", "b"):
        monkeypatch.setattr(sys, "argv", ["make_bundled.py", str(documents), str(tmp_path / out)])
        script.main()
    for name in (CORPUS_NAME, TOKENIZER_NAME, NOTICE_NAME):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with lzma.open(tmp_path / "a" / CORPUS_NAME, "rt", encoding="utf-8") as lines:
        values = [json.loads(line) for line in lines]
    sizes = {name: sum(len(v["text"].encode()) for v in values if v["source"] == name) for name in free}
    assert sum(sizes.values()) == sum(len(v["text"].encode()) for v in values)  # nothing from elsewhere
    assert all(16_000 < size <= 20_000 for size in sizes.values())
    assert 10_000 < sum(len(v["text"].encode()) for v in values if v["split"] == "val") <= 20_000
    assert {name: script.SOURCES[name].license for name in free} == {v["source"]: v["license"] for v in values}


def test_script_refuses_an_unexpected_license(tmp_path: Path, script: ModuleType) -> None:
    documents = write_documents(tmp_path / "d.jsonl.xz", {"18F blog": "CC-BY-4.0"})
    with pytest.raises(SystemExit, match=r"'CC-BY-4\.0', expected 'US public domain / CC0-1\.0'"):
        script.read_documents(documents)


def test_quotas_are_even_where_sources_allow(script: ModuleType) -> None:
    assert script.even_quotas({"a": 10, "b": 100, "c": 1000, "d": 900}, 310) == {"a": 10, "b": 100, "c": 100, "d": 100}
    assert script.even_quotas({"a": 10, "b": 20}, 100) == {"a": 10, "b": 20}
