"""Token loader against a plain numpy gather from memory maps: tokens/s into the caller's buffers.

    python benchmarks/loader.py [--processes 1 2 4 8] [--rounds 9] [--json runs/benchmarks/loader.json]

Both serve the record preset's batches (384 windows of 2048 tokens over all processes) of the same plan from the same
shards, which lie in the page cache; every process is one rank. The gather copies row by row and checks nothing, so it
does less than the loader, which looks at every token id. Rounds of both alternate in the same processes; a round lasts
as long as its slowest process, and the medians are compared.

Then every process takes its batches at the pace of a training step at 10 M tokens/s over all processes, sleeping in
between, and the share of the time that it waited for the loader is measured (worst process, median of the rounds).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Barrier

import numpy as np
from numpy.typing import NDArray

from pygolf._core import BatchPlan, TokenLoader

SEQUENCE_LENGTH = 2048
WINDOWS = 384
VOCAB_SIZE = 1024
SHARDS = 8
SHARD_TOKENS = 10_000_000
BUFFERS = 3
BATCHES = 40  # a round
PACE = 10e6  # tokens/s of all processes
WARM_ROUNDS = 2  # not counted: the first touch of a map costs a page fault a page

Buffer = NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class Result:
    """Medians over the rounds, in tokens/s of all processes together."""

    processes: int
    loader: float
    gather: float
    waited: float
    """Share of a step at PACE that was spent waiting for the loader."""

    @property
    def ratio(self) -> float:
        return self.loader / self.gather


def write_shards(folder: Path) -> list[Path]:
    """Shards of random tokens."""
    paths = []
    for i in range(SHARDS):
        header = np.zeros(256, dtype="<i4")
        header[:3] = 20240520, 1, SHARD_TOKENS
        tokens = np.random.default_rng(i).integers(0, VOCAB_SIZE, SHARD_TOKENS, dtype=np.uint16)
        paths.append(folder / f"train_{i:03d}.bin")
        paths[-1].write_bytes(header.tobytes() + tokens.tobytes())
    return paths


def empty_buffers(count: int, processes: int) -> list[Buffer]:
    return [np.empty((WINDOWS // processes, SEQUENCE_LENGTH + 1), dtype=np.uint16) for _ in range(count)]


def open_loader(paths: list[Path], rank: int, processes: int) -> TokenLoader:
    return TokenLoader(
        [(str(path), 0, None) for path in paths],
        seed=1337,
        sequence_length=SEQUENCE_LENGTH,
        windows_per_batch=WINDOWS,
        rank=rank,
        world_size=processes,
        vocab_size=VOCAB_SIZE,
        buffers=empty_buffers(BUFFERS, processes),
    )


def loader_step(loader: TokenLoader) -> Callable[[], None]:
    """A function that serves one batch by the loader."""
    return lambda: loader.release(loader.next())


def gather_step(paths: list[Path], rank: int, processes: int) -> Callable[[], None]:
    """A function that serves one batch by numpy."""
    maps = [np.memmap(path, dtype=np.uint16, mode="r", offset=1024) for path in paths]
    plan = BatchPlan(
        seed=1337,
        shard_tokens=[tokens.size for tokens in maps],
        sequence_length=SEQUENCE_LENGTH,
        windows_per_batch=WINDOWS,
    )
    (buffer,) = empty_buffers(1, processes)

    def step() -> None:
        shards, starts = plan.next()
        mine = zip(shards[rank::processes].tolist(), starts[rank::processes].tolist(), strict=True)
        for row, (shard, start) in enumerate(mine):
            buffer[row] = maps[shard][start : start + SEQUENCE_LENGTH + 1]

    return step


def seconds(step: Callable[[], None]) -> float:
    """Seconds a batch. The batches that were prefetched before the clock started are not counted."""
    for _ in range(BUFFERS):
        step()
    begin = time.perf_counter()
    for _ in range(BATCHES):
        step()
    return (time.perf_counter() - begin) / BATCHES


def waited(loader: TokenLoader, step: Callable[[], None]) -> float:
    """Share of the time that a consumer waits that needs a batch every 1/PACE seconds a token."""
    pause, before = WINDOWS * SEQUENCE_LENGTH / PACE, loader.wait_seconds
    begin = time.perf_counter()
    for batch in range(BATCHES):
        step()
        time.sleep(max(0.0, begin + (batch + 1) * pause - time.perf_counter()))
    return (loader.wait_seconds - before) / (time.perf_counter() - begin)


def run_rank(paths: list[Path], rank: int, barrier: Barrier, rounds: int) -> list[tuple[float, float, float]]:
    """(loader, gather) seconds a batch and the share waited at PACE of every round.

    All ranks are in step through a manager's proxy of a barrier.
    """
    loader = open_loader(paths, rank, barrier.parties)
    by_loader, by_gather = loader_step(loader), gather_step(paths, rank, barrier.parties)
    measures = [lambda: seconds(by_loader), lambda: seconds(by_gather), lambda: waited(loader, by_loader)]
    rows = []
    for _ in range(WARM_ROUNDS + rounds):
        row = []
        for measure_one in measures:
            barrier.wait()
            row.append(measure_one())
        rows.append((row[0], row[1], row[2]))
    return rows[WARM_ROUNDS:]


def measure(paths: list[Path], processes: int, rounds: int) -> Result:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(processes) as pool:
        barrier = manager.Barrier(processes)
        ranks = pool.starmap(run_rank, [(paths, rank, barrier, rounds) for rank in range(processes)], chunksize=1)
    worst = np.median(np.array(ranks).max(axis=0), axis=0)  # over ranks, then rounds: [3]
    tokens = WINDOWS * SEQUENCE_LENGTH
    return Result(processes=processes, loader=tokens / worst[0], gather=tokens / worst[1], waited=float(worst[2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/loader.json"))
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        paths = write_shards(Path(folder))
        for processes in arguments.processes:
            result = measure(paths, processes, arguments.rounds)
            results.append(asdict(result) | {"ratio": result.ratio})
            print(
                f"{processes} processes: loader {result.loader / 1e6:.0f} M tokens/s, gather "
                f"{result.gather / 1e6:.0f} M tokens/s, ratio {result.ratio:.2f}; "
                f"waits {result.waited:.2%} of a step at {PACE / 1e6:.0f} M tokens/s"
            )
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
