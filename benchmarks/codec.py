"""Bytes and seconds of the codecs on the codes of real weights, against each other in one process, interleaved.

usage: python benchmarks/codec.py WEIGHTS.safetensors [--rounds 3] [--threads 2] [--json FILE]

Block matrices are rounded with row step 12.85 std / 31; what is written is each codec's artifact of them alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from pygolf._core import ArtifactReader, ArtifactWriter
from pygolf.model.gpt import parameter_role

CODECS = ("entropy", "bytes-zstd", "bitpack")
STEP_STDS = 12.85 / 31


def coded(weight_RC: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes [R, C] and fp16 steps [R]."""
    steps = (STEP_STDS * weight_RC.std(dim=1, correction=0)).half()
    codes = (weight_RC / steps.float()[:, None]).round().clamp(-31, 31)
    return codes.to(torch.int8), steps


def measure(matrices: dict[str, tuple[Tensor, Tensor]], codec: str, path: Path, threads: int) -> dict[str, float]:
    """Bytes of the artifact, seconds to write it and seconds to read all codes back."""
    writer = ArtifactWriter("{}")
    for name, (codes, steps) in matrices.items():
        writer.add_rows(name, codes.numpy(), steps.numpy(), bits=6, codec=codec)
    begin = time.perf_counter()
    size = writer.write(str(path), threads=threads)
    written = time.perf_counter()
    reader = ArtifactReader(str(path))
    for name, (codes, _) in matrices.items():
        assert (reader.codes(name) == codes.numpy()).all(), name
    return {"bytes": size, "write": written - begin, "read": time.perf_counter() - written}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    weights = {n: w.float() for n, w in load_file(options.weights).items() if parameter_role(n) == "matrix"}
    matrices = {name: coded(weight) for name, weight in weights.items()}
    runs: dict[str, list[dict[str, float]]] = {codec: [] for codec in CODECS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for codec in CODECS:
                runs[codec].append(measure(matrices, codec, Path(folder) / "codes.golf", options.threads))
    table = {codec: {k: statistics.median(r[k] for r in rows) for k in rows[0]} for codec, rows in runs.items()}
    print(f"{sum(w.numel() for w in weights.values()):,} codes, {options.threads} threads")
    for codec, row in table.items():
        print(f"{codec:<12} {row['bytes']:>12,.0f} bytes  write {row['write']:6.2f} s  read {row['read']:6.2f} s")
    if options.json:
        options.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
