"""Downloads the challenge's published FineWeb shards into a data folder (`pygolf download`).

Layout of the repository on the Hugging Face hub, a dataset made by openai/parameter-golf:

    datasets/manifest.json                                    which datasets and tokenizers there are
    datasets/datasets/fineweb10B_sp1024/fineweb_train_000000.bin ...   100 M tokens each
    datasets/datasets/fineweb10B_sp1024/fineweb_val_000000.bin ...
    datasets/tokenizers/fineweb_1024_bpe.model
"""

from __future__ import annotations

import errno
import hashlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers, disable_progress_bars

from pygolf._core import TokenShard
from pygolf.data.dataset import INDEX_NAME, DatasetIndex, ShardEntry, Split
from pygolf.data.find import shard_digests
from pygolf.data.shards import Progress
from pygolf.data.tokenizer import Tokenizer
from pygolf.errors import ChecksumError, DataError, IoError
from pygolf.files import read_json

REPO_ID = "willdepueoai/parameter-golf"
_ROOT = "datasets"
_STAGING = ".download"

T = TypeVar("T")
Arrived = Callable[[int], None]
"""Called with the bytes of a file that are there."""


class RemoteFile(NamedTuple):
    """A file of the repository that a data folder needs."""

    path: str
    split: Split | None
    """None for the tokenizer."""

    @property
    def name(self) -> str:
        """Its name in the data folder."""
        return Path(self.path).name


class Published(NamedTuple):
    """What the hub says of a file."""

    size: int
    sha256: str | None
    """None for a small file that the hub keeps without a checksum of its contents."""


def download_fineweb(
    out_dir: Path,
    *,
    variant: str = "sp1024",
    train_shards: int = 80,
    repo_id: str = REPO_ID,
    progress: Progress | None = None,
) -> DatasetIndex:
    """Makes a data folder of published shards: the whole validation split and the first `train_shards` shards.

    May be stopped and started again: what is whole stays, a file that was cut continues. Every file is checked
    against the hub's size and SHA-256 and opened as a shard. A folder that is complete needs no network.

    Args:
        out_dir: the folder; it may hold part of the same download, but no other shards.
        variant: "sp" and the number of pieces of the tokenizer, as in sp1024.
        train_shards: training shards to get, 100 M tokens (200 MB) each.
        repo_id: dataset repository on the hub.
        progress: called as bytes come, with "download", bytes that are there and bytes in all.

    Raises:
        DataError: the hub cannot be reached or lacks a file, or other shards are in the folder.
        ChecksumError, FormatError: a file is damaged; it is removed, so that the next call gets it again.
        IoError: the disk is full.
    """
    out_dir, dataset = Path(out_dir), f"fineweb10B_{variant}"
    if train_shards < 1:
        raise DataError(f"train_shards is {train_shards}, expected 1 or more")
    origin = {"repository": repo_id, "dataset": dataset}
    complete = _complete(out_dir, origin, train_shards)
    if complete is not None:
        return complete
    hub = _Hub(repo_id, out_dir / _STAGING)
    files = _plan(read_json(hub.fetch(f"{_ROOT}/manifest.json")), dataset, train_shards, repo_id)
    _check_no_others(out_dir, files)
    _get_all(hub, files, out_dir, progress)
    index = _index(out_dir, files, {**origin, "revision": hub.revision})
    index.write(out_dir)
    shutil.rmtree(out_dir / _STAGING, ignore_errors=True)
    return index


class _Partial(io.FileIO):
    """A file that grows at its end and says how large it is."""

    def __init__(self, path: Path, arrived: Arrived) -> None:
        super().__init__(path, "a+")
        self._arrived = arrived

    def write(self, data: Any) -> int:
        count = super().write(data)
        self._arrived(self.tell())
        return count


class _Hub:
    """One revision of a dataset repository."""

    def __init__(self, repo_id: str, staging: Path) -> None:
        self._repo_id, self._staging = repo_id, staging
        disable_progress_bars()  # the hub's own, which would fight with pygolf's for the terminal
        self.revision = str(self._ask(lambda: HfApi().dataset_info(repo_id).sha))

    def fetch(self, path: str, size: int | None = None, arrived: Arrived = lambda size: None) -> Path:
        """Gets a file of `size` bytes, continuing where an earlier try was cut, by another process too.

        hf_hub_download would begin anew after a kill: it gives what it has not finished a name that no other process
        knows. This keeps it under a name of its own, one for each revision.
        """
        target = self._staging / self.revision / Path(path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        url = hf_hub_url(self._repo_id, path, repo_type="dataset", revision=self.revision)

        def get() -> None:
            with _Partial(target, arrived) as stream:
                http_get(url, stream, resume_size=stream.tell(), headers=build_hf_headers(), expected_size=size)

        if size is None:
            target.unlink(missing_ok=True)  # whether a part is all of it cannot be told
        self._ask(get)
        return target

    def published(self, paths: list[str]) -> dict[str, Published]:
        """Sizes and checksums; a path that is missing from the repository is missing here."""
        infos: list[Any] = self._ask(
            lambda: HfApi().get_paths_info(self._repo_id, paths, repo_type="dataset", revision=self.revision)
        )
        return {info.path: Published(info.size, info.lfs.sha256 if info.lfs else None) for info in infos}

    def _ask(self, request: Callable[[], T]) -> T:
        try:
            return request()
        except Exception as error:  # the hub's client lets errors of its HTTP library through, whichever that is
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise IoError(f"cannot write {self._staging}: {error.strerror}; free space and run again") from error
            raise DataError(
                f"cannot download from the dataset {self._repo_id} on huggingface.co: {type(error).__name__}: {error}; "
                "check the network and the name, then run the same command again: it continues where it stopped"
            ) from error


def _plan(manifest: Any, dataset: str, train_shards: int, repo_id: str) -> list[RemoteFile]:
    """The files to get: tokenizer, validation shards, then training shards in order."""
    try:
        datasets = {entry["name"]: entry for entry in manifest["datasets"]}
        tokenizers = {entry["name"]: entry for entry in manifest["tokenizers"]}
        if dataset not in datasets:
            raise DataError(f"{repo_id} has no dataset {dataset}; it has {', '.join(sorted(datasets))}")
        stats = datasets[dataset]["stats"]
        counts = {"train": int(stats["files_train"]), "val": int(stats["files_val"])}
        model = str(tokenizers[datasets[dataset]["tokenizer_name"]].get("model_path", ""))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{repo_id}: manifest.json has another layout than expected ({error!r})") from error
    if counts["train"] < train_shards:
        raise DataError(f"train_shards is {train_shards}, but {dataset} has {counts['train']}; ask for fewer")
    if not model.endswith(".model"):
        raise DataError(f"{dataset} has no SentencePiece tokenizer; choose a variant like sp1024")
    shard = f"{_ROOT}/datasets/{dataset}/fineweb_"
    val = [RemoteFile(f"{shard}val_{i:06d}.bin", "val") for i in range(counts["val"])]
    train = [RemoteFile(f"{shard}train_{i:06d}.bin", "train") for i in range(train_shards)]
    return [RemoteFile(f"{_ROOT}/{model}", None), *val, *train]


def _check_no_others(out_dir: Path, files: list[RemoteFile]) -> None:
    wanted = {file.name for file in files}
    others = sorted(path.name for path in out_dir.glob("*.bin") if path.name not in wanted)
    if others:
        raise DataError(
            f"{out_dir} holds {len(others)} other shards ({others[0]} ...), which training would read as well; "
            "choose another folder, remove them, or ask for as many shards as it holds"
        )


def _get_all(hub: _Hub, files: list[RemoteFile], out_dir: Path, progress: Progress | None) -> None:
    published = hub.published([file.path for file in files])
    missing = [file.path for file in files if file.path not in published]
    if missing:
        raise DataError(f"the repository lacks {missing[0]}, which its manifest promises; choose other shards")
    total, done = sum(entry.size for entry in published.values()), 0
    for file in files:
        expected, final = published[file.path], out_dir / file.name
        before = done

        def arrived(size: int, before: int = before) -> None:
            if progress is not None:
                progress("download", before + size, total)

        if not (final.is_file() and _is_as_published(final, expected)):
            _check(hub.fetch(file.path, expected.size, arrived), file, expected).replace(final)
        done += expected.size
        arrived(expected.size)


def _check(path: Path, file: RemoteFile, expected: Published) -> Path:
    """The downloaded file, if it is what the hub promised; else it goes."""
    try:
        if not _is_as_published(path, expected):
            raise ChecksumError(
                f"{path}: {path.stat().st_size} bytes with a SHA-256 that the hub does not give, expected "
                f"{expected.size} bytes with {expected.sha256}; removed, run the same command to get it again"
            )
        if file.split is not None:
            TokenShard(str(path))
    except Exception:
        path.unlink()
        raise
    return path


def _is_as_published(path: Path, expected: Published) -> bool:
    if path.stat().st_size != expected.size:
        return False
    with path.open("rb") as stream:
        return expected.sha256 in (None, hashlib.file_digest(stream, "sha256").hexdigest())


def _index(out_dir: Path, files: list[RemoteFile], origin: dict[str, str]) -> DatasetIndex:
    model = next(file.name for file in files if file.split is None)
    tokenizer = Tokenizer(out_dir / model)
    shards = [file for file in files if file.split is not None]
    digests = shard_digests([out_dir / file.name for file in shards])
    entries = tuple(
        _entry(out_dir / file.name, str(file.split), digest, tokenizer.bos_id)
        for file, digest in zip(shards, digests, strict=True)
    )
    return DatasetIndex(
        tokenizer_file=model,
        tokenizer_sha256=tokenizer.digest,
        vocab_size=tokenizer.vocab_size,
        shards=entries,
        inputs=(origin,),
        counts={"documents": sum(entry.documents for entry in entries)},
    )


def _entry(path: Path, split: str, digest: str, bos_id: int) -> ShardEntry:
    tokens = TokenShard(str(path)).tokens
    documents = int(np.count_nonzero(tokens == bos_id))
    return ShardEntry(file=path.name, split=split, tokens=tokens.size, documents=documents, sha256=digest)


def _complete(out_dir: Path, origin: dict[str, str], train_shards: int) -> DatasetIndex | None:
    """The folder's index, if it is the download that is asked for and all its shards open."""
    if not (out_dir / INDEX_NAME).is_file():
        return None
    index = DatasetIndex.read(out_dir)
    if not any(origin.items() <= entry.items() for entry in index.inputs):
        raise DataError(f"{out_dir} holds another data set ({index.inputs}); choose another folder")
    shards = [out_dir / entry.file for entry in index.shards]
    found = sum(entry.split == "train" for entry in index.shards)
    if found != train_shards or not all(path.is_file() for path in shards):
        return None
    for path in shards:
        TokenShard(str(path))
    return index
