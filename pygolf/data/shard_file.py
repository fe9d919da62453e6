"""Writes token shards (csrc/FORMAT.md has the bytes; `pygolf._core.TokenShard` reads and checks them).

A shard is a header of 256 little-endian int32 [20240520, 1, token count n, 0 ...], then n little-endian
uint16 tokens: 1024 + 2n bytes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pygolf.errors import DataError

SHARD_MAGIC = 20240520
SHARD_VERSION = 1
HEADER_BYTES = 1024
MAX_SHARD_TOKENS = 2**31 - 1  # the header's count is a signed 32-bit number


class ShardWriter:
    """A shard that grows. Its header is written last, so a file that was cut short is not taken for a shard.

    A context manager: closes the shard when the block ends well and abandons it when it does not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.token_count = 0
        self._digest = hashlib.sha256()
        self._stream = path.open("wb")
        self._stream.write(bytes(HEADER_BYTES))

    def write(self, tokens: NDArray[np.uint16]) -> None:
        """Appends tokens [n]."""
        data = np.ascontiguousarray(tokens, dtype="<u2").data
        self._stream.write(data)
        self._digest.update(data)
        self.token_count += tokens.size

    @property
    def sha256(self) -> str:
        """Digest of the tokens written so far (hex)."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Writes the header. Raises DataError if the shard is empty or too long for it."""
        with self._stream:
            if not 0 < self.token_count <= MAX_SHARD_TOKENS:
                raise DataError(f"{self.path}: {self.token_count} tokens, expected 1 to {MAX_SHARD_TOKENS} in a shard")
            header = np.zeros(HEADER_BYTES // 4, dtype="<i4")
            header[:3] = SHARD_MAGIC, SHARD_VERSION, self.token_count
            self._stream.seek(0)
            self._stream.write(header.data)

    def abandon(self) -> None:
        """Closes the file as it is; without a header it is no shard."""
        self._stream.close()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()
