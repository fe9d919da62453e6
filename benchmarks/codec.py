"""Bytes and seconds of the codecs on the codes of real weights, against each other in one process, interleaved.

usage: python benchmarks/codec.py FILE [--rounds 3] [--threads 2] [--json FILE]

FILE is an artifact, whose codes are taken as they are, or WEIGHTS.safetensors, whose block matrices are rounded with
row step 12.85 std / 31. Bytes are those of the codes alone. raw, bitpack, bytes-zstd, zstd and entropy are codecs of
the artifact; lzma and brotli (if it is installed) pack each tensor's codes, one byte a code where codes are bytes, else
the low bytes and then the high ones. The bound is the class entropy that `pygolf inspect` shows.
"""

from __future__ import annotations

import argparse
import functools
import json
import lzma
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from pygolf._core import ArtifactReader, ArtifactWriter
from pygolf.model.gpt import parameter_role
from pygolf.report.inspect import class_entropy_bytes, quantizers

try:
    import brotli
except ImportError:
    brotli = None

STEP_STDS = 12.85 / 31


def rounded(path: Path, target: Path) -> None:
    """Writes the block matrices of a checkpoint as int6 codes with one fp16 step a row."""
    writer = ArtifactWriter("{}")
    for name, weight in load_file(path).items():
        if parameter_role(name) == "matrix":
            writer.add_rows(name, *_coded(weight.float()), bits=6, codec="raw")
    writer.write(target)


def _coded(weight_RC: Tensor) -> tuple[np.ndarray, np.ndarray]:
    steps_R = (STEP_STDS * weight_RC.std(dim=1, correction=0)).half()
    codes_RC = (weight_RC / steps_R.float()[:, None]).round().clamp(-31, 31)
    return codes_RC.byte().numpy().view(np.int8), steps_R.numpy()


@dataclass(frozen=True)
class Run:
    """What one codec made of all codes once."""

    bytes: int
    write: float  # seconds
    read: float


def added(source: ArtifactReader, codec: str) -> ArtifactWriter:
    """The coded tensors of an artifact in another codec."""
    writer = ArtifactWriter("{}")
    for t in source.tensors:
        if t.encoding == "rows":
            writer.add_rows(t.name, source.codes(t.name), source.scales(t.name), bits=t.bits or 8, codec=codec)
        if t.encoding == "factors":
            arrays = source.codes(t.name), source.row_logs(t.name), source.col_logs(t.name)
            writer.add_factors(t.name, *arrays, step=t.step or 1.0, states=t.states or 1, codec=codec)
    return writer


def in_artifact(source: ArtifactReader, codec: str, threads: int, path: Path) -> Run:
    """Packs and reads all codes with a codec of the artifact."""
    writer = added(source, codec)
    begin = time.perf_counter()
    writer.write(path, threads=threads)
    written = time.perf_counter()
    reader = ArtifactReader(path)
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda t: reader.codes(t.name), reader.tensors))
    seconds = time.perf_counter() - written
    for t, codes in zip(source.tensors, found, strict=True):
        assert np.array_equal(codes, source.codes(t.name)), t.name
    return Run(sum(t.sections[-1][3] for t in reader.tensors), written - begin, seconds)


def in_stream(
    source: ArtifactReader, pack: Callable[[bytes], bytes], unpack: Callable[[bytes], bytes], threads: int
) -> Run:
    """Packs and reads each tensor's code bytes with a general compressor."""
    plain = [code_bytes(source.codes(t.name)) for t in source.tensors]
    with ThreadPoolExecutor(threads) as pool:
        begin = time.perf_counter()
        packed = list(pool.map(pack, plain))
        written = time.perf_counter()
        found = list(pool.map(unpack, packed))
        seconds = time.perf_counter() - written
    assert found == plain
    return Run(sum(map(len, packed)), written - begin, seconds)


def code_bytes(codes: np.ndarray) -> bytes:
    if np.abs(codes.astype(np.int32)).max() < 128:
        return codes.astype(np.int8).tobytes()
    return codes.view(np.uint8).reshape(-1, codes.itemsize).T.tobytes()


def contestants(source: ArtifactReader, threads: int, folder: Path) -> dict[str, Callable[[], Run]]:
    encodings = {t.encoding for t in source.tensors}
    names = ["entropy", "raw"] + (["zstd"] if "factors" in encodings else ["bytes-zstd", "bitpack"])
    runs = {n: functools.partial(in_artifact, source, n, threads, folder / "codes.golf") for n in names}
    pack = functools.partial(lzma.compress, preset=9)
    runs["lzma-9"] = functools.partial(in_stream, source, pack, lzma.decompress, threads)
    if brotli is not None:
        pack = functools.partial(brotli.compress, quality=11, lgwin=24)
        runs["brotli-11"] = functools.partial(in_stream, source, pack, brotli.decompress, threads)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.golf"
        if options.file.suffix == ".safetensors":
            rounded(options.file, plain)
        else:
            added(ArtifactReader(options.file), "raw").write(plain)
        source = ArtifactReader(plain)
        rivals = contestants(source, options.threads, Path(folder))
        runs = [{name: run() for name, run in rivals.items()} for _ in range(options.rounds)]
        bound = sum(class_entropy_bytes(source.codes(t.name), quantizers(source, t)) for t in source.tensors)
    table = {name: _median([seen[name] for seen in runs]) for name in rivals}
    codes = sum(int(np.prod(t.shape)) for t in source.tensors)
    print(f"{codes:,} codes, {options.threads} threads; class entropy {bound:,.0f} bytes, {8 * bound / codes:.4f} bits")
    for name, run in table.items():
        bits = 8 * run.bytes / codes
        print(f"{name:<11} {run.bytes:>12,} bytes {bits:7.4f} bits  write {run.write:6.2f} s  read {run.read:6.2f} s")
    if options.json:
        options.json.write_text(json.dumps({name: vars(run) for name, run in table.items()}, indent=2) + "\n")


def _median(runs: list[Run]) -> Run:
    return Run(runs[0].bytes, *(statistics.median(getattr(run, part) for run in runs) for part in ("write", "read")))


if __name__ == "__main__":
    main()
