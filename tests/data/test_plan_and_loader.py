"""The loader objects of pygolf._core: plan against a twin in plain Python, buffers, errors, GIL and Ctrl-C.

The rules themselves are tested in C++ (tests/cpp/test_batch_plan.cpp, test_token_loader.cpp).
"""

from __future__ import annotations

import gc
import math
import signal
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pygolf import _core

MASK = 2**64 - 1
Tokens = NDArray[np.uint16]
Range = tuple[str, int, int | None]


class PlanTwin:
    """The recipe read literally. Windows of a batch: list of (shard, start)."""

    def __init__(self, seed: int, shards: Sequence[int], length: int, windows: int, ranks: int) -> None:
        self.shards, self.length, self.windows, self.ranks = shards, length, windows, ranks
        self.random = mix(seed)
        self.batch = 0
        self.blocks_left = [self.new_pass(tokens) for tokens in shards]

    def below(self, bound: int) -> int:
        while True:
            self.random = (self.random + 0x9E3779B97F4A7C15) & MASK
            value = mix(self.random)
            if value >= 2**64 % bound:
                return value % bound

    def new_pass(self, tokens: int) -> list[int]:
        """Starts of a pass's blocks, last one first, so that pop() takes the next."""
        phase = self.below(min(self.length - 1, tokens - self.length - 1) + 1)
        blocks = (tokens - 1 - phase) // self.length
        start, stride = self.below(blocks), 1
        if blocks > 1:
            stride = 1 + self.below(blocks - 1)
            while math.gcd(stride, blocks) != 1:
                stride = 1 + self.below(blocks - 1)
        return [phase + (start + k * stride) % blocks * self.length for k in reversed(range(blocks))]

    def weight(self, shard: int) -> int:
        exponent = (4050 - min(self.batch, 1800)) * 2**16 // 4500  # alpha = 0.90 - 0.40 p in 2^-16
        root, power = float(len(self.blocks_left[shard])), 1.0
        for bit in reversed(range(16)):
            root = math.sqrt(root)
            power *= root if exponent >> bit & 1 else 1.0
        return int(power * 65536)

    def draw(self, weights: dict[int, int]) -> int:
        point = self.below(sum(weights.values()))
        for shard, weight in weights.items():
            point -= weight
            if point < 0:
                return shard
        raise AssertionError("a point outside the weights")

    def mixed(self) -> int:
        limit = min(len(self.shards), self.windows)
        low, high = min(max(8, self.ranks), limit), min(max(32, 8 * self.ranks), limit)
        return math.floor(low + min(self.batch / 1800, 1.0) * (high - low) + 0.5)

    def next(self) -> list[tuple[int, int]]:
        weights = [self.weight(shard) for shard in range(len(self.shards))]
        pool, counts = list(range(len(self.shards))), dict[int, int]()
        for _ in range(self.mixed()):
            drawn = self.draw({shard: weights[shard] for shard in pool})
            counts[drawn] = 1
            pool[pool.index(drawn)] = pool[-1]
            pool.pop()
        for _ in range(self.windows - len(counts)):
            counts[self.draw({shard: weights[shard] for shard in counts})] += 1
        self.batch += 1
        return [(shard, self.take(shard)) for shard in list(self.interleave(counts))]

    def interleave(self, counts: dict[int, int]) -> Iterator[int]:
        order = list(counts)
        while order:
            for left in reversed(range(2, len(order) + 1)):
                other = self.below(left)
                order[left - 1], order[other] = order[other], order[left - 1]
            for shard in order:
                counts[shard] -= 1
                yield shard
            order = [shard for shard in order if counts[shard]]

    def take(self, shard: int) -> int:
        start = self.blocks_left[shard].pop()
        if not self.blocks_left[shard]:
            self.blocks_left[shard] = self.new_pass(self.shards[shard])
        return start


def mix(x: int) -> int:
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, MASK),
    spare=st.lists(st.integers(0, 400), min_size=1, max_size=60),
    length=st.integers(1, 20),
    windows=st.integers(1, 90),
    ranks=st.integers(1, 12),
    start=st.sampled_from([0, 900, 1799, 4000]),
)
def test_plan_is_that_of_the_twin(
    seed: int, spare: list[int], length: int, windows: int, ranks: int, start: int
) -> None:
    shards = [length + 1 + tokens for tokens in spare]
    twin = PlanTwin(seed, shards, length, windows, ranks)
    plan = _core.BatchPlan(
        seed=seed, shard_tokens=shards, sequence_length=length, windows_per_batch=windows, mixing_ranks=ranks
    )
    words = plan.state()
    words[2] = twin.batch = start
    plan.restore(words)
    for _ in range(4):
        shard, first = plan.next()
        assert shard.dtype == np.uint32
        assert first.dtype == np.uint64
        assert list(zip(shard.tolist(), first.tolist(), strict=True)) == twin.next()


def write_shard(path: Path, tokens: Tokens) -> Path:
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, tokens.size
    path.write_bytes(header.tobytes() + tokens.astype("<u2").tobytes())
    return path


def counting(path: Path, count: int = 500, first: int = 0) -> Path:
    return write_shard(path, np.arange(first, first + count, dtype=np.uint16))


class Batches:
    """A loader over `ranges` with its buffers."""

    def __init__(self, ranges: list[Range], buffers: int = 3, world_size: int = 1, **changes: Any) -> None:
        options: dict[str, Any] = {
            "seed": 7,
            "sequence_length": 8,
            "windows_per_batch": 12,
            "rank": 0,
            "vocab_size": 4000,
        }
        options |= changes
        shape = (options["windows_per_batch"] // world_size, options["sequence_length"] + 1)
        self.buffers = [np.zeros(shape, dtype=np.uint16) for _ in range(buffers)]
        self.loader = _core.TokenLoader(ranges, buffers=self.buffers, world_size=world_size, **options)

    def take(self, count: int) -> Tokens:
        rows = []
        for _ in range(count):
            index = self.loader.next()
            rows.append(self.buffers[index].copy())
            self.loader.release(index)
        return np.concatenate(rows)


@pytest.fixture
def ranges(tmp_path: Path) -> list[Range]:
    a, b = counting(tmp_path / "a.bin", 500), counting(tmp_path / "b.bin", 300, first=1000)
    return [(str(a), 0, None), (str(b), 10, 290)]


def test_ranks_merge_and_resume_continues(ranges: list[Range]) -> None:
    whole = Batches(ranges).take(20)
    assert np.array_equal(whole - whole[:, :1], np.tile(np.arange(9), (240, 1)))
    assert whole[whole >= 1000].min() >= 1010
    assert whole.max() < 1290
    for rank in range(3):
        first = Batches(ranges, world_size=3, rank=rank)
        head = first.take(9)
        resumed = Batches(ranges, world_size=3, rank=rank, state=first.loader.state())
        assert np.array_equal(np.concatenate([head, resumed.take(11)]), whole[rank::3])


def test_shard_view_is_read_only_and_keeps_the_map(tmp_path: Path) -> None:
    path = counting(tmp_path / "a.bin", 70)
    shard = _core.TokenShard(path)
    assert (shard.path, shard.token_count) == (path, 70)
    tokens = shard.tokens
    assert np.shares_memory(tokens, shard.tokens)
    del shard
    gc.collect()
    assert np.array_equal(tokens, np.arange(70))
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        tokens.setflags(write=True)


def test_errors_are_typed(tmp_path: Path, ranges: list[Range]) -> None:
    with pytest.raises(_core.IoError, match=r"^\[S1\] cannot open .*none\.bin: No such file"):
        _core.TokenShard(tmp_path / "none.bin")
    newer = counting(tmp_path / "newer.bin")
    newer.write_bytes(newer.read_bytes()[:4] + b"\x02" + newer.read_bytes()[5:])
    with pytest.raises(_core.VersionError, match=r"^\[S3\] "):
        Batches([(str(newer), 0, None)])
    with pytest.raises(_core.FormatError, match=r"^\[S7\] .*a\.bin: token \d+ is \d+, expected below .* 20;"):
        Batches(ranges[:1], vocab_size=20).take(100)
    with pytest.raises(_core.ArgumentError, match=r"windows_per_batch is 12, .* multiple of world_size, which is 5"):
        Batches(ranges, world_size=5)
    with pytest.raises(_core.ArgumentError, match="range begin is -1, expected 0 or more"):
        Batches([(ranges[0][0], -1, None)])
    assert issubclass(_core.VersionError, _core.FormatError)
    for error in (_core.FormatError, _core.IoError, _core.ArgumentError, _core.NumericError):
        assert issubclass(error, _core.PygolfError)


def frozen(array: Tokens) -> Tokens:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("buffer", "found"),
    [
        (np.zeros((12, 9), dtype=np.int16), "a int16 array of shape (12, 9)"),
        (np.zeros((12, 9), dtype=">u2"), "a >u2 array"),
        (np.zeros((12, 8), dtype=np.uint16), "array of shape (12, 8)"),
        (np.zeros(12 * 9, dtype=np.uint16), "array of shape (108,)"),
        (np.zeros((9, 12), dtype=np.uint16).T, "strides (2, 24)"),
        (frozen(np.zeros((12, 9), dtype=np.uint16)), "a read-only uint16 array"),
        (np.zeros((11, 9), dtype=np.uint16), "buffer 1 holds 99 tokens, expected 108"),
    ],
)
def test_buffers_must_be_what_the_thread_writes_to(ranges: list[Range], buffer: NDArray[Any], found: str) -> None:
    good = np.zeros((12, 9), dtype=np.uint16)
    with pytest.raises(_core.ArgumentError) as error:
        _core.TokenLoader(
            ranges, seed=1, sequence_length=8, windows_per_batch=12, rank=0, world_size=1, vocab_size=4000,
            buffers=[good, buffer],
        )  # fmt: skip
    assert "buffer 1" in str(error.value)
    assert found in str(error.value)


def test_loader_keeps_its_buffers_alive_and_closes(ranges: list[Range]) -> None:
    batches = Batches(ranges)
    alive = [weakref.ref(buffer) for buffer in batches.buffers]
    batches.buffers.clear()  # the loader's references are now the only ones
    gc.collect()
    assert all(buffer() is not None for buffer in alive)
    with batches.loader as loader:
        for _ in range(20):
            loader.release(loader.next())
        assert loader.wait_seconds >= 0
        state = loader.state()
    with pytest.raises(_core.ArgumentError, match="closed"):
        loader.next()
    assert loader.state() == state
    del loader, batches
    assert all(buffer() is None for buffer in alive)


def slow_batches(ranges: list[Range]) -> Batches:
    """A loader that needs about half a second for a batch: each of many draws looks at all of many shards."""
    return Batches(ranges * 500, buffers=1, windows_per_batch=300_000, mixing_ranks=1000)


def test_next_lets_other_threads_run(ranges: list[Range]) -> None:
    done, ticks = threading.Event(), 0

    def tick() -> None:
        nonlocal ticks
        while not done.wait(0.002):
            ticks += 1

    thread = threading.Thread(target=tick)
    batches = slow_batches(ranges)
    thread.start()
    batches.loader.next()
    during = ticks
    done.set()
    thread.join()
    assert during >= 10


def test_ctrl_c_interrupts_next(ranges: list[Range]) -> None:
    batches = slow_batches(ranges)
    before = batches.loader.state()
    old = signal.signal(signal.SIGALRM, signal.default_int_handler)  # what SIGINT does
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with pytest.raises(KeyboardInterrupt):
            batches.loader.next()
    finally:
        signal.signal(signal.SIGALRM, old)
    assert batches.loader.state() == before, "next() handed a batch out before it looked at the signal"
    batches.loader.next()
    assert batches.loader.state() != before, "an interrupt must not lose the batch"
