"""Downloads, against a stand-in for the hub that serves a local folder."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import numpy as np
import pytest

from pygolf.data import download
from pygolf.data.bundled import BUNDLED
from pygolf.data.dataset import INDEX_NAME, TOKENIZER_NAME, DatasetIndex
from pygolf.data.download import download_fineweb
from pygolf.data.find import find_shards
from pygolf.data.shards import write_shard
from pygolf.errors import ChecksumError, DataError, FormatError, IoError, PygolfError

MODEL_PATH = "tokenizers/fineweb_1024_bpe.model"
SHARDS = "datasets/datasets/fineweb10B_sp1024"


class Hub:
    """Serves the files under `root` as one revision of a repository; counts and may spoil what it serves."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.served: list[str] = []
        self.before: Callable[[str], None] = lambda path: None
        self.spoil: Callable[[str, bytes], bytes] = lambda path, data: data
        self.online = True

    def dataset_info(self, repo_id: str) -> SimpleNamespace:
        if not self.online:
            raise ConnectionError("Name or service not known")
        return SimpleNamespace(sha="abc123")

    def get_paths_info(self, repo_id: str, paths: list[str], *, repo_type: str, revision: str) -> list[SimpleNamespace]:
        assert (repo_type, revision) == ("dataset", "abc123")
        return [self.info(path) for path in paths if (self.root / path).is_file()]

    def info(self, path: str) -> SimpleNamespace:
        data = (self.root / path).read_bytes()
        lfs = SimpleNamespace(sha256=hashlib.sha256(data).hexdigest()) if path.endswith(".bin") else None
        return SimpleNamespace(path=path, size=len(data), lfs=lfs)

    def get(
        self, url: str, stream: BinaryIO, *, resume_size: int, headers: dict[str, str], expected_size: int | None
    ) -> None:
        path = url.partition("/resolve/abc123/")[2]
        self.before(path)
        data = self.spoil(path, (self.root / path).read_bytes())
        stream.write(data[resume_size:])
        self.served.append(Path(path).name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    root = tmp_path / "hub"
    (root / SHARDS).mkdir(parents=True)
    (root / "datasets/tokenizers").mkdir()
    shutil.copyfile(BUNDLED / TOKENIZER_NAME, root / "datasets" / MODEL_PATH)
    for split, count in (("train", 4), ("val", 2)):
        for i in range(count):
            write_shard(root / SHARDS / f"fineweb_{split}_{i:06d}.bin", np.arange(100 + i) % 50)
    manifest = {
        "datasets": [
            {
                "name": "fineweb10B_sp1024",
                "tokenizer_name": "sp_bpe_1024",
                "stats": {"files_train": 4, "files_val": 2},
            },
            {"name": "fineweb10B_byte260", "tokenizer_name": "bytes", "stats": {"files_train": 1, "files_val": 1}},
        ],
        "tokenizers": [
            {"name": "sp_bpe_1024", "model_path": MODEL_PATH},
            {"name": "bytes", "path": "tokenizers/fineweb_pure_byte_260.json"},
        ],
    }
    (root / "datasets/manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    stand_in = Hub(root)
    monkeypatch.setattr(download, "HfApi", lambda: stand_in)
    monkeypatch.setattr(download, "http_get", stand_in.get)
    return stand_in


def test_makes_a_data_folder(tmp_path: Path, hub: Hub) -> None:
    out, calls = tmp_path / "out", []
    index = download_fineweb(out, train_shards=3, progress=lambda *call: calls.append(call))
    names = [f"fineweb_train_{i:06d}.bin" for i in range(3)]
    assert [path.name for path in find_shards(out, "train")] == names
    assert [path.name for path in find_shards(out, "val")] == ["fineweb_val_000000.bin", "fineweb_val_000001.bin"]
    for path in (*find_shards(out, "train"), *find_shards(out, "val")):
        assert path.read_bytes() == (hub.root / SHARDS / path.name).read_bytes()
    assert DatasetIndex.read(out) == index
    assert (index.tokens("train"), index.documents("train"), index.vocab_size) == (303, 7, 1024)  # BOS is id 1
    assert index.inputs[0]["revision"] == "abc123"
    expected = {INDEX_NAME, "fineweb_1024_bpe.model", *names, "fineweb_val_000000.bin", "fineweb_val_000001.bin"}
    assert {path.name for path in out.iterdir()} == expected
    assert calls[-1][0] == "download"
    assert calls[-1][1] == calls[-1][2] == sum((out / name).stat().st_size for name in expected - {INDEX_NAME})


def test_continues_where_it_was_stopped(tmp_path: Path, hub: Hub) -> None:
    def stop(path: str) -> None:
        if path.endswith("fineweb_train_000001.bin"):
            raise KeyboardInterrupt

    hub.before = stop
    with pytest.raises(KeyboardInterrupt):
        download_fineweb(tmp_path / "out", train_shards=2)
    assert not (tmp_path / "out" / INDEX_NAME).exists()
    hub.served.clear()
    hub.before = lambda path: None
    assert download_fineweb(tmp_path / "out", train_shards=2).tokens("train") == 201
    assert hub.served == ["manifest.json", "fineweb_train_000001.bin"]


def test_more_shards_later_and_a_complete_folder_needs_no_network(tmp_path: Path, hub: Hub) -> None:
    download_fineweb(tmp_path / "out", train_shards=1)
    hub.served.clear()
    more = download_fineweb(tmp_path / "out", train_shards=2)
    assert hub.served == ["manifest.json", "fineweb_train_000001.bin"]
    hub.online = False
    assert download_fineweb(tmp_path / "out", train_shards=2) == more
    with pytest.raises(DataError, match="holds another data set"):
        download_fineweb(tmp_path / "out", variant="sp8192", train_shards=2)


def test_file_that_was_damaged_on_disk_comes_again(tmp_path: Path, hub: Hub) -> None:
    index = download_fineweb(tmp_path / "out", train_shards=2)
    shard = tmp_path / "out" / "fineweb_train_000000.bin"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    (tmp_path / "out" / INDEX_NAME).unlink()
    hub.served.clear()
    assert download_fineweb(tmp_path / "out", train_shards=2) == index
    assert hub.served == ["manifest.json", "fineweb_train_000000.bin"]


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_damage_on_the_way_is_found(tmp_path: Path, hub: Hub, damage: str) -> None:
    def spoil(path: str, data: bytes) -> bytes:
        return data[:-1] + (b"\x01" if damage == "flip" else b"") if path.endswith("val_000001.bin") else data

    hub.spoil = spoil
    with pytest.raises(ChecksumError, match=r"fineweb_val_000001\.bin: .* removed, run the same command"):
        download_fineweb(tmp_path / "out", train_shards=1)
    assert not list(tmp_path.glob("out/**/fineweb_val_000001.bin"))
    hub.spoil = lambda path, data: data
    download_fineweb(tmp_path / "out", train_shards=1)


def test_published_file_that_is_no_shard(tmp_path: Path, hub: Hub) -> None:
    (hub.root / SHARDS / "fineweb_val_000000.bin").write_bytes(bytes(2000))
    with pytest.raises(FormatError, match="S2"):
        download_fineweb(tmp_path / "out", train_shards=1)
    assert not list(tmp_path.glob("out/**/*.bin"))


def test_offline(tmp_path: Path, hub: Hub) -> None:
    hub.online = False
    with pytest.raises(DataError, match="ConnectionError: Name or service not known; check the network"):
        download_fineweb(tmp_path / "out", train_shards=1)


def test_full_disk(tmp_path: Path, hub: Hub) -> None:
    def full(path: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    hub.before = full
    with pytest.raises(IoError, match="No space left on device"):
        download_fineweb(tmp_path / "out", train_shards=1)


@pytest.mark.parametrize(
    ("variant", "train_shards", "message"),
    [
        ("sp1024", 5, "train_shards is 5, but fineweb10B_sp1024 has 4"),
        ("sp1024", 0, "train_shards is 0"),
        ("sp4096", 1, "has no dataset fineweb10B_sp4096; it has fineweb10B_byte260, fineweb10B_sp1024"),
        ("byte260", 1, "no SentencePiece tokenizer"),
    ],
)
def test_what_the_repository_does_not_have(
    tmp_path: Path, hub: Hub, variant: str, train_shards: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        download_fineweb(tmp_path / "out", variant=variant, train_shards=train_shards)


def test_file_that_the_manifest_promises_in_vain(tmp_path: Path, hub: Hub) -> None:
    (hub.root / SHARDS / "fineweb_train_000001.bin").unlink()
    with pytest.raises(DataError, match=r"lacks datasets/datasets/fineweb10B_sp1024/fineweb_train_000001\.bin"):
        download_fineweb(tmp_path / "out", train_shards=2)


@pytest.mark.parametrize("manifest", ["[]", '{"datasets": 3}', "no json"])
def test_manifest_of_another_layout(tmp_path: Path, hub: Hub, manifest: str) -> None:
    (hub.root / "datasets/manifest.json").write_text(manifest, encoding="utf-8")
    with pytest.raises(PygolfError, match=r"manifest\.json"):
        download_fineweb(tmp_path / "out", train_shards=1)


def test_other_shards_in_the_folder(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "out").mkdir()
    write_shard(tmp_path / "out" / "train_000000.bin", np.arange(5))
    with pytest.raises(DataError, match=r"1 other shards \(train_000000\.bin \.\.\.\)"):
        download_fineweb(tmp_path / "out", train_shards=1)
