"""Finding token shards and hashing them: all that scoring needs of a data folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from pygolf._core import TokenShard
from pygolf.errors import DataError


def find_shards(folder: Path, split: Literal["train", "val"]) -> list[Path]:
    """Shard files of a split in a data folder, sorted by name.

    Raises DataError if the folder is missing, is a file, or has no shard of the split.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"data folder {folder} {found}; make one with 'pygolf shard' or 'pygolf download'")
    shards = sorted(path for path in folder.glob(f"*{split}_*.bin") if path.is_file())
    if not shards:
        names = sorted(path.name for path in folder.iterdir())
        held = f"it holds {', '.join(names[:5])}" + " ..." * (len(names) > 5) if names else "it is empty"
        raise DataError(
            f"data folder {folder} has no shard named *{split}_*.bin ({held}); "
            "make shards with 'pygolf shard' or 'pygolf download'"
        )
    return shards


def shard_digest(path: Path) -> str:
    """SHA-256 (hex) of a shard's token bytes, without the header. Raises FormatError for a bad shard."""
    return hashlib.sha256(TokenShard(os.fspath(path)).tokens.data).hexdigest()


def shard_digests(paths: Sequence[Path]) -> list[str]:
    """`shard_digest` of several files at once, one thread a core."""
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(shard_digest, paths))
