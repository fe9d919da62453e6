"""Sharding text against a plain loop over its documents: tokens/s a core.

    python benchmarks/shard.py [--input TEXT.jsonl.xz ...] [--tokenizer MODEL] [--workers 0] [--rounds 5] [--json FILE]

The plain loop runs on one core, has the documents in memory as strings already, and only calls SentencePiece and
makes an array; sharding also reads, decompresses, parses, splits, hashes and writes. Rounds of both alternate and the
medians are compared. Rates are tokens a second of processor time, summed over all processes, so that other work on
the machine does not count. Without --input the bundled corpus is sharded.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import sentencepiece

from pygolf.data.bundled import BUNDLED, CORPUS_NAME
from pygolf.data.dataset import TOKENIZER_NAME, DatasetIndex
from pygolf.data.documents import Counts, documents_of, find_text_files, open_text_file, read_records
from pygolf.data.shards import shard_text


@dataclass(frozen=True, kw_only=True)
class Result:
    """Medians over the rounds."""

    workers: int
    tokens: int
    text_bytes: int
    sharding_seconds: float
    """Processor time, with that of the workers."""
    sharding_wall_seconds: float
    loop_seconds: float
    """Processor time."""

    @property
    def sharding_rate(self) -> float:
        """Tokens a second of processor time of sharding."""
        return self.tokens / self.sharding_seconds

    @property
    def loop_rate(self) -> float:
        """Tokens a second of processor time of the plain loop."""
        return self.tokens / self.loop_seconds

    @property
    def ratio(self) -> float:
        """Sharding's rate a core over the loop's."""
        return self.sharding_rate / self.loop_rate


def read_texts(inputs: list[Path]) -> list[str]:
    """All documents of the inputs."""
    texts: list[str] = []
    for file in find_text_files(inputs):
        with open_text_file(file) as raw:
            for record in read_records(file, raw, "text"):
                texts += [document.decode() for document in documents_of(record, file, "text", False, Counts())]
    return texts


def processor_seconds() -> float:
    """Processor time of this process and of all that it started and that have ended."""
    return sum(os.times()[:4])


def time_sharding(inputs: list[Path], tokenizer: Path, workers: int) -> tuple[float, float, DatasetIndex]:
    """Processor and wall seconds of `shard_text` and what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        begin, processor = time.perf_counter(), processor_seconds()
        index = shard_text(
            inputs, Path(folder) / "data", tokenizer=tokenizer, val_fraction=0.02, workers=workers, overwrite=True
        )
        return processor_seconds() - processor, time.perf_counter() - begin, index


def time_loop(texts: list[str], tokenizer: Path) -> float:
    """Processor seconds of the plain loop."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    begin = processor_seconds()
    ids: list[int] = []
    for text in texts:
        ids.append(1)
        ids.extend(processor.encode(text))
    np.array(ids, dtype=np.uint16)
    return processor_seconds() - begin


def measure(inputs: list[Path], tokenizer: Path, workers: int, rounds: int) -> Result:
    """Both in turn, `rounds` times."""
    texts = read_texts(inputs)
    sharding, wall, loop = [], [], []
    for _ in range(rounds):
        seconds, wall_seconds, index = time_sharding(inputs, tokenizer, workers)
        sharding.append(seconds)
        wall.append(wall_seconds)
        loop.append(time_loop(texts, tokenizer))
    return Result(
        workers=workers,
        tokens=index.tokens("train") + index.tokens("val"),
        text_bytes=index.counts["text_bytes"],
        sharding_seconds=statistics.median(sharding),
        sharding_wall_seconds=statistics.median(wall),
        loop_seconds=statistics.median(loop),
    )


def main() -> None:
    """Reads the arguments, measures, prints and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, nargs="+", default=[BUNDLED / CORPUS_NAME])
    parser.add_argument("--tokenizer", type=Path, default=BUNDLED / TOKENIZER_NAME)
    parser.add_argument("--workers", type=int, default=0, help="0 for one a core")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/shard.json"))
    args = parser.parse_args()
    workers = args.workers or len(os.sched_getaffinity(0))
    result = measure(args.input, args.tokenizer, workers, args.rounds)
    print(f"{result.text_bytes:,} bytes of text, {result.tokens:,} tokens, {workers} workers on {platform.machine()}")
    print(
        f"sharding   {result.sharding_rate:12,.0f} tokens/s a core ({result.sharding_wall_seconds:.2f} s by the clock)"
    )
    print(f"plain loop {result.loop_rate:12,.0f} tokens/s a core")
    print(f"ratio      {result.ratio:12.2f}")
    values = {**asdict(result), "sharding_rate": result.sharding_rate, "loop_rate": result.loop_rate}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({**values, "ratio": result.ratio}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
