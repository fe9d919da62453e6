"""Copies of a text inside shards are found wherever they lie, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pygolf.data.copies import BLOCK_TOKENS, find_copies
from pygolf.data.loader import TokenSpan
from pygolf.data.shards import write_shard

Tokens = NDArray[np.uint16]


def noise(count: int, seed: int, vocabulary: int = 1024) -> Tokens:
    return np.random.default_rng(seed).integers(0, vocabulary, count).astype(np.uint16)


def search(text: Tokens, shard: Tokens, path: Path, begin: int = 0) -> list[tuple[int, int, int]]:
    write_shard(path, shard)
    return [(c.begin, c.end, c.at) for c in find_copies(text, [TokenSpan(path, begin, len(shard))])]


@settings(max_examples=60, deadline=None)
@given(
    begin=st.integers(0, 800),
    length=st.integers(2 * BLOCK_TOKENS - 1, 300),
    at=st.integers(0, 200_000),
    seed=st.integers(0, 9),
)
def test_a_run_of_two_blocks_is_found_whole_at_any_offset(
    begin: int, length: int, at: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text, shard = noise(1_200, seed), noise(201_000, 100 + seed)
    run = text[begin : begin + length]
    shard[at : at + length] = run
    # What stands beside the copy differs, so that the find ends exactly where the copy does.
    if at:
        shard[at - 1] = (text[begin - 1] + 1) % 1024
    shard[at + length] = (text[begin + length] + 1) % 1024 if begin + length < len(text) else shard[at + length]
    found = search(text, shard, tmp_path_factory.getbasetemp() / "shard.bin")
    assert found == [(begin, begin + length, at)]


def test_strangers_and_short_runs_are_no_copies(tmp_path: Path) -> None:
    text, shard = noise(5_000, 1), noise(100_000, 2)
    shard[500 : 500 + BLOCK_TOKENS - 1] = text[64 : 64 + BLOCK_TOKENS - 1]
    assert search(text, shard, tmp_path / "shard.bin") == []
    assert search(text[:50], text, tmp_path / "shard.bin") == []
    assert search(text, text[:50], tmp_path / "shard.bin") == []


def test_tokens_outside_the_span_do_not_count(tmp_path: Path) -> None:
    text = noise(1_000, 1)
    shard = np.concatenate([text, noise(1_000, 2)])
    assert search(text, shard, tmp_path / "shard.bin") == [(0, 1_000, 0)]
    assert search(text, shard, tmp_path / "shard.bin", begin=1_000) == []
    assert search(text, shard, tmp_path / "shard.bin", begin=600) == [(600, 1_000, 600)]


def test_text_that_repeats_itself_is_found_each_time_and_soon(tmp_path: Path) -> None:
    part = noise(640, 3)
    text = np.concatenate([part, noise(100, 4), part, np.zeros(20_000, np.uint16)])
    shard = np.concatenate([noise(77, 5), part, np.zeros(500_000, np.uint16)])
    copied = np.zeros(len(text), bool)
    for begin, end, _ in search(text, shard, tmp_path / "shard.bin"):
        copied[begin:end] = True
    assert copied[:640].all()
    assert not copied[704:732].any()  # 740 is no multiple of a block: the second copy is found but for its first tokens
    assert copied[768:].all()
