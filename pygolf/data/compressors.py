"""What general-purpose compressors make of a text: the yardstick beside a model's bits per byte."""

from __future__ import annotations

import lzma

import zstandard

from pygolf.errors import DataError


def compressor_bits_per_byte(text: bytes) -> dict[str, float]:
    """Compressed bits per byte of a text as `xz -9` and `zstd -19` would store it.

    Raises DataError for an empty text, which has no bits per byte.
    """
    if not text:
        raise DataError("the text to compress is empty; bits per byte need at least one byte")
    stored = {
        "xz -9": lzma.compress(text, preset=9),
        "zstd -19": zstandard.ZstdCompressor(level=19).compress(text),
    }
    return {name: 8 * len(data) / len(text) for name, data in stored.items()}
