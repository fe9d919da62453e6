"""Runs of text that also stand in token shards, wherever they lie in them.

The text is cut into aligned blocks of BLOCK_TOKENS tokens. A hash of every window of that many tokens of a shard is
looked up among the blocks' hashes, so every run of at least 2 * BLOCK_TOKENS - 1 equal tokens holds a block that is
found, at any offset. Equal hashes are compared token by token, and a find is followed to both of its ends. The text is
indexed, not the shards: memory grows with the text, time with the shards (100 M tokens against 62 M tokens of text: 6 s
on one core).
Source: the rolling block search of rsync (Tridgell, 1999); the hash is built by doubling, as in a suffix array.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pygolf._core import TokenShard
from pygolf.data.loader import TokenSpan

BLOCK_TOKENS = 64
_MULTIPLIERS = tuple(np.uint64(0x9E3779B97F4A7C15 * (2 * k + 1) + 2 * k & 0xFFFFFFFFFFFFFFFF | 1) for k in range(7))
_CHUNK = 1 << 16  # positions hashed at once: the arrays stay in the cache
_BUCKETS_PER_BLOCK = 16

Tokens = NDArray[np.uint16]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Copy:
    """Tokens [begin, end) of the text equal those of a shard from token `at` on."""

    begin: int
    end: int
    span: TokenSpan
    """Where it was found."""
    at: int


def find_copies(
    text: Tokens, spans: Sequence[TokenSpan], progress: Callable[[int, int], None] | None = None
) -> list[Copy]:
    """Runs of the text that stand in the spans too, in the order of spans and text; runs may overlap.

    Every run of 2 * BLOCK_TOKENS - 1 tokens or more is found; of those that a span holds several times, one place is
    named. One thread a core; `progress` gets (spans done, spans).
    """
    blocks = _Blocks(text)
    copies: list[Copy] = []
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        for done, found in enumerate(pool.map(blocks.find, spans), 1):
            copies += found
            if progress is not None:
                progress(done, len(spans))
    return copies


class _Blocks:
    """The aligned blocks of a text; equal ones share a group."""

    def __init__(self, text: Tokens) -> None:
        self._text = text
        count = len(text) // BLOCK_TOKENS
        parts = [_hashes(part)[::BLOCK_TOKENS] for part in _overlapping(text)]
        hashes = np.concatenate([np.empty(0, np.uint64), *parts])
        self._hashes, self._first, self._group = np.unique(hashes, return_index=True, return_inverse=True)
        # Sorted by group, so that the blocks of a group are a slice.
        self._members = np.argsort(self._group, kind="stable")
        self._member_begin = np.searchsorted(self._group[self._members], np.arange(len(self._hashes) + 1))
        self._shift = np.uint64(64 - max(10, int(count * _BUCKETS_PER_BLOCK).bit_length()))
        tops, buckets = self._hashes >> self._shift, 1 << (64 - int(self._shift))
        self._filter = np.zeros(buckets, dtype=np.bool_)
        self._filter[tops] = True
        self._bucket_begin = np.searchsorted(tops, np.arange(buckets, dtype=np.uint64)).astype(np.int32)
        self._bucket_size = int(np.bincount(tops.astype(np.int64)).max()) if count else 0

    def find(self, span: TokenSpan) -> list[Copy]:
        tokens = TokenShard(str(span.path)).tokens[span.begin : span.end]
        groups, places = self._matches(tokens)
        if not len(groups):
            return []
        blocks, places = self._members_of(groups, places)
        return [Copy(a, b, span, span.begin + p) for a, b, p in self._runs(tokens, blocks, places)]

    def _matches(self, tokens: Tokens) -> tuple[Indices, Indices]:
        """Groups of blocks that stand in the tokens, and the first place of each."""
        found = [self._matches_in(tokens, i * _CHUNK, part) for i, part in enumerate(_overlapping(tokens))]
        groups = np.concatenate([np.empty(0, np.int64), *(group for group, _ in found)])
        places = np.concatenate([np.empty(0, np.int64), *(place for _, place in found)])
        groups, first = np.unique(groups, return_index=True)
        return groups, places[first]

    def _matches_in(self, tokens: Tokens, start: int, part: Tokens) -> tuple[Indices, Indices]:
        hashes = _hashes(part)
        places = np.flatnonzero(self._filter[hashes >> self._shift])
        hashes = hashes[places]
        groups, first = np.unique(self._group_of(hashes), return_index=True)
        groups, first = groups[groups >= 0], first[groups >= 0]
        places = places[first] + start
        inside = np.arange(BLOCK_TOKENS)
        text_at = self._first[groups] * BLOCK_TOKENS
        same = (tokens[places[:, None] + inside] == self._text[text_at[:, None] + inside]).all(axis=1)
        return groups[same], places[same]

    def _group_of(self, hashes: NDArray[np.uint64]) -> Indices:
        """Group of each hash, -1 for none: a bucket of sorted hashes has few members, so no search is needed."""
        at = self._bucket_begin[hashes >> self._shift]
        groups = np.full(len(hashes), -1)
        for _ in range(self._bucket_size):
            groups = np.where(self._hashes[at] == hashes, at, groups)
            at = np.minimum(at + 1, len(self._hashes) - 1)
        return groups

    def _members_of(self, groups: Indices, places: Indices) -> tuple[Indices, Indices]:
        """All blocks of the groups, sorted, each with the place of its group."""
        begins, ends = self._member_begin[groups], self._member_begin[groups + 1]
        counts = ends - begins
        steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        blocks = self._members[np.repeat(begins, counts) + steps]
        order = np.argsort(blocks)
        return blocks[order], np.repeat(places, counts)[order]

    def _runs(self, tokens: Tokens, blocks: Indices, places: Indices) -> Iterator[tuple[int, int, int]]:
        """Joins blocks that follow each other in both texts; yields [begin, end) of the text and the place."""
        breaks = np.flatnonzero((np.diff(blocks) != 1) | (np.diff(places) != BLOCK_TOKENS)) + 1
        first, last = np.append(0, breaks), np.append(breaks, len(blocks)) - 1
        begins, ends = blocks[first] * BLOCK_TOKENS, (blocks[last] + 1) * BLOCK_TOKENS
        left = self._equal_beyond(tokens, begins - 1, places[first] - 1, -1)
        right = self._equal_beyond(tokens, ends, places[last] + BLOCK_TOKENS, 1)
        yield from zip((begins - left).tolist(), (ends + right).tolist(), (places[first] - left).tolist(), strict=True)

    def _equal_beyond(self, tokens: Tokens, text_at: Indices, places: Indices, step: int) -> Indices:
        """How many tokens, up to a block, go on being equal from there in a direction."""
        offsets = step * np.arange(BLOCK_TOKENS)
        a, b = text_at[:, None] + offsets, places[:, None] + offsets
        inside = (a >= 0) & (a < len(self._text)) & (b >= 0) & (b < len(tokens))
        equal = inside & (self._text[a.clip(0, len(self._text) - 1)] == tokens[b.clip(0, len(tokens) - 1)])
        count: Indices = np.logical_and.accumulate(equal, axis=1).sum(axis=1)
        return count


def _overlapping(tokens: Tokens) -> Iterator[Tokens]:
    """Parts that together hold every window of BLOCK_TOKENS tokens once, _CHUNK of them in each."""
    for start in range(0, len(tokens) - BLOCK_TOKENS + 1, _CHUNK):
        yield tokens[start : start + _CHUNK + BLOCK_TOKENS - 1]


def _hashes(tokens: Tokens) -> NDArray[np.uint64]:
    """Hash of every window of BLOCK_TOKENS tokens: windows of 2 m from neighbouring windows of m, in place."""
    hashes = (tokens.astype(np.uint64) + np.uint64(1)) * _MULTIPLIERS[0]
    hashes ^= hashes >> np.uint64(31)
    width = 1
    while width < BLOCK_TOKENS:
        left = hashes[: max(0, len(hashes) - width)] * _MULTIPLIERS[width.bit_length()]
        left += hashes[width:]
        hashes, width = left, 2 * width
    return hashes
