"""A data folder: shards of both splits, the tokenizer that made them, and index.json, which describes them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pygolf.data.shard_file import ShardWriter
from pygolf.errors import DataError
from pygolf.files import read_json

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")

INDEX_NAME = "index.json"
INDEX_FORMAT = 1
TOKENIZER_NAME = "tokenizer.model"
SHARD_TOKENS = 100_000_000  # as in FineWeb's published shards


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """What index.json says of one shard."""

    file: str
    split: str
    tokens: int
    documents: int
    """Documents that begin in this shard."""
    sha256: str
    """Digest of the token bytes (hex)."""


@dataclass(frozen=True, kw_only=True)
class DatasetIndex:
    """Contents of index.json."""

    tokenizer_file: str
    tokenizer_sha256: str
    vocab_size: int
    shards: tuple[ShardEntry, ...]
    inputs: tuple[dict[str, Any], ...]
    """Where the text came from: files with their size, or a repository with its revision."""
    counts: dict[str, int]
    """What was read, and what was wrong with it."""

    def tokens(self, split: Split) -> int:
        """Tokens of a split."""
        return sum(shard.tokens for shard in self.shards if shard.split == split)

    def documents(self, split: Split) -> int:
        """Documents of a split."""
        return sum(shard.documents for shard in self.shards if shard.split == split)

    def write(self, folder: Path) -> None:
        """Writes index.json into a folder."""
        values = {"format": INDEX_FORMAT, **dataclasses.asdict(self)}
        (folder / INDEX_NAME).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> DatasetIndex:
        """Reads a folder's index.json. Raises DataError if it is missing, broken or of another format."""
        path = folder / INDEX_NAME
        values = read_json(path)
        try:
            if values.pop("format") != INDEX_FORMAT:
                raise ValueError(f"it is not of format {INDEX_FORMAT}")
            shards = tuple(ShardEntry(**entry) for entry in values.pop("shards"))
            return cls(shards=shards, inputs=tuple(values.pop("inputs")), **values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is no index of a data folder ({error}); make the folder again") from error


class DatasetWriter:
    """Writes tokens of both splits into the shards of a folder: train_000000.bin ... and val_000000.bin ...

    A context manager: the files are closed at the end of the block, however it ends.
    """

    def __init__(self, folder: Path, *, bos_id: int, shard_tokens: int = SHARD_TOKENS) -> None:
        self._splits = {split: _SplitWriter(folder, split, bos_id, shard_tokens) for split in SPLITS}

    def write(self, split: Split, tokens: NDArray[np.uint16]) -> None:
        """Appends tokens [n] to a split; a document may begin in one shard and end in the next."""
        self._splits[split].write(tokens)

    def finish(self) -> tuple[ShardEntry, ...]:
        """Finishes the last shard of each split and says what was written."""
        return tuple(entry for writer in self._splits.values() for entry in writer.finish())

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._splits.values():
            writer.abandon()


class _SplitWriter:
    def __init__(self, folder: Path, split: Split, bos_id: int, shard_tokens: int) -> None:
        self._folder, self._split = folder, split
        self._bos_id, self._limit = bos_id, shard_tokens
        self._shard: ShardWriter | None = None
        self._documents = 0
        self._entries: list[ShardEntry] = []

    def write(self, tokens: NDArray[np.uint16]) -> None:
        while tokens.size:
            if self._shard is None:
                self._shard = ShardWriter(self._folder / f"{self._split}_{len(self._entries):06d}.bin")
            part = tokens[: self._limit - self._shard.token_count]
            self._shard.write(part)
            self._documents += int(np.count_nonzero(part == self._bos_id))
            if self._shard.token_count == self._limit:
                self._finish_shard(self._shard)
            tokens = tokens[part.size :]

    def finish(self) -> list[ShardEntry]:
        if self._shard is not None:
            self._finish_shard(self._shard)
        return self._entries

    def abandon(self) -> None:
        if self._shard is not None:
            self._shard.abandon()

    def _finish_shard(self, shard: ShardWriter) -> None:
        shard.close()
        entry = ShardEntry(
            file=shard.path.name,
            split=self._split,
            tokens=shard.token_count,
            documents=self._documents,
            sha256=shard.sha256,
        )
        self._entries.append(entry)
        self._shard, self._documents = None, 0
