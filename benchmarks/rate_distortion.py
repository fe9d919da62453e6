"""Bits per byte against packed bytes: pygolf's quantizer and the public ways, on one trained model.

usage: python benchmarks/rate_distortion.py WEIGHTS.safetensors DATA [--config RUN/config.toml] [--out docs]
           [--calibration-windows 128] [--val-tokens 2031617] [--seeds 3] [--threads 16]

WEIGHTS: trained or adapted weights of a run. DATA: its data folder; calibration reads the last windows of the training
shards, which training never saw, scoring the start of the validation shards, without overlap. Needs brotli.

| curve | block matrices | size |
|---|---|---|
| nearest | rounding, step a part of the row's largest weight | brotli-11 |
| gptq, quantile | GPTQ, codes -n..n, clip at one of 5 quantiles of |w|, the one of least squared error | brotli-11 |
| gptq, sdclip | GPTQ, step k std(row) / 31, codes -31..31 | brotli-11 |
| pygolf ... | everything, by quant/rd | the artifact |

brotli packs the codes, one byte each, a stream a matrix; steps are fp16, tables int8 rows and vectors fp16, as in the
record. Every point is a whole model, decoded and scored; pygolf's is read back from its file.
Writes rate_distortion.json, .csv and .svg and prints the two figures that compare `pygolf` with SDClip at k = 12.85.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory

import brotli
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from pygolf._core import ArtifactReader
from pygolf.config import ModelConfig, QuantConfig, RuntimeConfig
from pygolf.config_file import load_toml
from pygolf.data.find import find_shards
from pygolf.data.loader import read_windows, take_windows, whole_spans
from pygolf.data.splits import find_tokenizer, join_tokens, limit
from pygolf.data.tokenizer import Tokenizer
from pygolf.model.gpt import GPT, parameter_role, place
from pygolf.progress import Reporter
from pygolf.quant.artifact import artifact_bytes
from pygolf.quant.calibrate import collect_moments
from pygolf.quant.factors import matrix_factors
from pygolf.quant.gptq import round_rows
from pygolf.quant.moments import Moments
from pygolf.quant.rd import CodedModel, Coder
from pygolf.runtime import Runtime, launch
from pygolf.score.sliding import token_nll

QUANTILES = (0.999, 0.9995, 0.9999, 0.99999, 1.0)
SDCLIP = 12.85
SDCLIPS = (6.0, 8.0, 10.5, SDCLIP, 16.0, 20.0, 25.0)
CODES = (7, 11, 17, 31, 50)
BITS = (2.05, 2.35, 2.65, 3.0, 3.4, 4.0, 4.75)
"""Bits a weight that pygolf's points aim at: 7 to 16 MB of 27 M weights."""
VARIANTS = {"pygolf": (8, True), "pygolf one-sided": (8, False), "pygolf no trellis": (1, True)}
"""Curve -> trellis states, feedback along rows."""
DAMPING = 0.005


@dataclass(frozen=True)
class Point:
    """One quantized model."""

    curve: str
    setting: float
    """Largest code, k, or step s."""
    seed: int
    codec: str
    bytes: int
    bpb: float


@dataclass(frozen=True)
class Bench:
    """A model, its statistics and a way to score it."""

    model: GPT
    weights: dict[str, Tensor]
    """Original values of every parameter."""
    score: Callable[[], float]
    pool: ThreadPoolExecutor
    table: Path
    """CSV of the points."""

    def measure(self, values: dict[str, Tensor]) -> float:
        """bpb with these values in the place of the model's."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(values.get(name, self.weights[name]).view(parameter.shape))
        return self.score()


def rounded_columns(weight_RC: Tensor, hessian_CC: Tensor, step_R: Tensor, most: int) -> Tensor:
    """GPTQ with columns by falling H_jj, in blocks of 128: codes [R, C] of -most .. most."""
    order = hessian_CC.diagonal().argsort(descending=True)
    damping = DAMPING * hessian_CC.diagonal().mean() * torch.eye(len(order), device=order.device)
    lower = torch.linalg.cholesky((hessian_CC[order][:, order] + damping).double())
    upper = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True).float()
    left, codes = weight_RC[:, order].clone(), torch.empty_like(weight_RC)
    for begin in range(0, len(order), 128):
        end = min(begin + 128, len(order))
        errors = torch.empty_like(left[:, begin:end])
        for j in range(begin, end):
            codes[:, j] = (left[:, j] / step_R).round().clamp(-most, most)
            errors[:, j - begin] = (left[:, j] - codes[:, j] * step_R) / upper[j, j]
            left[:, j + 1 : end] -= torch.outer(errors[:, j - begin], upper[j, j + 1 : end])
        left[:, end:] -= errors @ upper[begin:end, end:]
    return codes[:, order.argsort()]


def by_quantile(weight_RC: Tensor, hessian_CC: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Codes and steps with the quantile that leaves the least squared error of the whole matrix."""
    clips_KR = torch.quantile(weight_RC.abs(), torch.tensor(QUANTILES, device=weight_RC.device), dim=1)
    steps_KR = (clips_KR / most).half().float()
    repeated = weight_RC.repeat(len(QUANTILES), 1)
    codes_KRC = rounded_columns(repeated, hessian_CC, steps_KR.flatten(), most).unflatten(0, steps_KR.shape)
    best = (weight_RC - codes_KRC * steps_KR[:, :, None]).square().sum(dim=(1, 2)).argmin()
    return codes_KRC[best], steps_KR[best]


def nearest(weight_RC: Tensor, most: int) -> tuple[Tensor, Tensor]:
    step_R = (weight_RC.abs().amax(dim=1) / most).half().float()
    return (weight_RC / step_R[:, None]).round(), step_R


def by_deviation(weight_RC: Tensor, hessian_CC: Tensor, k: float) -> tuple[Tensor, Tensor]:
    step_R = (k * weight_RC.std(dim=1, correction=0) / 31).half().float()
    return rounded_columns(weight_RC, hessian_CC, step_R, 31), step_R


def brotli_bytes(codes: bytes) -> int:
    return len(brotli.compress(codes, quality=11, lgwin=24))


def public_point(
    bench: Bench, curve: str, setting: float, seed: int, solve: Callable[[str, Tensor], tuple[Tensor, Tensor]]
) -> Callable[[], Point]:
    """Scores at once; the returned call waits for brotli."""
    values, sizes, fixed = {}, [], 0
    for name, weight in bench.weights.items():
        role = parameter_role(name)
        if role == "matrix":
            codes, step_R = solve(name, weight)
            values[name] = codes * step_R[:, None]
            sizes.append(bench.pool.submit(brotli_bytes, codes.to(torch.int8).cpu().numpy().tobytes()))
            fixed += 2 * len(step_R)
        elif role == "vector":
            values[name] = weight.half().float()
            fixed += 2 * weight.numel()
        else:
            rows = round_rows(weight.cpu(), 8)
            values[name] = rows.dequantize().to(weight.device)
            sizes.append(bench.pool.submit(brotli_bytes, rows.codes.numpy().tobytes()))
            fixed += 2 * len(rows.scales)
    bpb = bench.measure(values)
    return lambda: Point(curve, setting, seed, "brotli-11", fixed + sum(f.result() for f in sizes), bpb)


def pygolf_points(bench: Bench, curve: str, moments: dict[str, Moments], seed: int, threads: int) -> Iterator[Point]:
    states, two_sided = VARIANTS[curve]
    matrices = {name: bench.weights[name] for name in moments}
    vectors = {name: w.half().cpu() for name, w in bench.weights.items() if name not in matrices}
    coder = Coder(matrices, matrix_factors(moments, two_sided=two_sided, warn=print), states=states, threads=threads)
    with TemporaryDirectory() as folder:
        for bits in BITS:
            step = step_for(coder, bits / 8 * sum(w.numel() for w in matrices.values()))
            path = Path(folder) / "model.golf"
            path.write_bytes(artifact_bytes(CodedModel(coder.code(step), vectors), {}, QuantConfig(), threads))
            reader = ArtifactReader(str(path))
            bpb = bench.measure({name: torch.from_numpy(reader.dequantize(name)) for name in bench.weights})
            yield shown(bench, Point(curve, step, seed, "artifact", path.stat().st_size, bpb))


def step_for(coder: Coder, size: float) -> float:
    low, high = -40.0, 10.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if coder.estimate_bytes(2.0**middle) > size else (low, middle)
    return 2.0**high


def all_points(bench: Bench, moments: list[dict[str, Moments]], threads: int) -> list[Point]:
    """Every curve; of the seeds beyond the first, what the comparison with SDClip needs."""
    waiting: list[Callable[[], Point]] = []
    first = moments[0]
    for seed, found in enumerate(moments):
        for k in SDCLIPS if seed == 0 else (SDCLIP,):
            waiting.append(
                public_point(
                    bench, "gptq, sdclip", k, seed, lambda n, w, h=found, k=k: by_deviation(w, h[n].columns, k)
                )
            )
    for most in CODES:
        waiting.append(
            public_point(bench, "gptq, quantile", most, 0, lambda n, w, m=most: by_quantile(w, first[n].columns, m))
        )
        waiting.append(public_point(bench, "nearest", most, 0, lambda n, w, m=most: nearest(w, m)))
    points: list[Point] = []
    for curve in VARIANTS:
        for seed, found in enumerate(moments if curve == "pygolf" else moments[:1]):
            points += pygolf_points(bench, curve, found, seed, threads)
    return points + [shown(bench, point()) for point in waiting]


def shown(bench: Bench, point: Point) -> Point:
    """Prints a point and adds it to the table, so that a run that is cut off has not been for nothing."""
    print(
        f"{point.curve:<18} seed {point.seed} {point.setting:9.3g} {point.bytes:>12,} bytes  bpb {point.bpb:.5f}",
        flush=True,
    )
    with bench.table.open("a", newline="") as file:
        csv.writer(file).writerow(asdict(point).values())
    return point


@dataclass(frozen=True)
class Comparison:
    """pygolf against SDClip GPTQ + brotli-11 at k = 12.85, of one calibration seed."""

    seed: int
    sdclip_bytes: int
    sdclip_rise: float
    bytes_at_its_loss: float
    rise_at_its_bytes: float


def compare(points: list[Point], unquantized: float, seed: int) -> Comparison:
    """Interpolates log(rise of bpb) against bytes between pygolf's points."""
    ours = sorted(
        (p.bytes, math.log(max(p.bpb - unquantized, 1e-6))) for p in points if (p.curve, p.seed) == ("pygolf", seed)
    )
    theirs = next(p for p in points if (p.curve, p.setting, p.seed) == ("gptq, sdclip", SDCLIP, seed))
    sizes, rises = (np.array(column) for column in zip(*ours, strict=True))
    rise = theirs.bpb - unquantized
    at_loss = float(np.interp(-math.log(rise), -rises, sizes))  # rises fall as sizes grow
    return Comparison(seed, theirs.bytes, rise, at_loss, float(np.exp(np.interp(theirs.bytes, sizes, rises))))


def draw(points: list[Point], unquantized: float, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams["svg.fonttype"] = "none"
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for curve in dict.fromkeys(p.curve for p in points):
        rows = sorted((p.bytes / 1e6, p.bpb - unquantized) for p in points if p.curve == curve and p.seed == 0)
        axes.plot(*zip(*rows, strict=True), marker="o", markersize=3, label=curve)
    axes.set(xlabel="packed MB (all parameters)", ylabel="rise of bpb by quantization", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def open_bench(options: argparse.Namespace, runtime: Runtime, pool: ThreadPoolExecutor) -> tuple[Bench, list[Tensor]]:
    """The bench and the calibration windows of every seed."""
    config = load_toml(options.config).model if options.config else ModelConfig()
    model = GPT(config)
    model.load_state_dict({name: w.float() for name, w in load_file(options.weights).items()})
    place(model, runtime)
    tokenizer = Tokenizer(find_tokenizer(options.data, None))
    text = join_tokens(limit(whole_spans(find_shards(options.data, "val")), options.val_tokens), config.vocab_size)
    text_bytes = int(tokenizer.token_bytes().target_bytes(text[:-1], text[1:]).sum())

    def score() -> float:
        nll = token_nll(model, text, stride=config.sequence_length, batch_tokens=options.batch_tokens, runtime=runtime)
        return float(nll.sum(dtype=np.float64)) / (math.log(2) * text_bytes)

    train = whole_spans(find_shards(options.data, "train"))
    count, length = options.calibration_windows, config.sequence_length
    last = sum((span.tokens - 1) // length for span in train) - options.seeds * count
    windows = [
        read_windows(take_windows(train, length, last + i * count, count), length, config.vocab_size)
        for i in range(options.seeds)
    ]
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    options.out.mkdir(parents=True, exist_ok=True)
    table = options.out / "rate_distortion.csv"
    table.write_text(",".join(field.name for field in fields(Point)) + "\n")
    return Bench(model, weights, score, pool, table), windows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--calibration-windows", type=int, default=256)
    parser.add_argument("--val-tokens", type=int, default=2_031_617)
    parser.add_argument("--batch-tokens", type=int, default=131_072)
    parser.add_argument("--microbatch-windows", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=16)
    options = parser.parse_args()
    started = time.perf_counter()
    with ThreadPoolExecutor(options.threads) as pool, launch(RuntimeConfig()) as runtime:
        bench, windows = open_bench(options, runtime, pool)
        moments = [
            collect_moments(
                bench.model,
                batch,
                runtime,
                microbatch_windows=options.microbatch_windows,
                whole_rows=any(two_sided for _, two_sided in VARIANTS.values()),
                seed=seed,
                reporter=Reporter(enabled=False),
            )
            for seed, batch in enumerate(windows)
        ]
        unquantized = bench.score()
        print(f"unquantized {unquantized:.5f}; calibrated after {time.perf_counter() - started:.0f} s", flush=True)
        points = all_points(bench, moments, options.threads)
    comparisons = [compare(points, unquantized, seed) for seed in range(options.seeds)]
    write(options.out, points, unquantized, comparisons)
    for c in comparisons:
        print(
            f"seed {c.seed}: SDClip {c.sdclip_bytes:,} bytes, rise {c.sdclip_rise:.5f} bpb. At its loss pygolf takes "
            f"{1 - c.bytes_at_its_loss / c.sdclip_bytes:.1%} fewer bytes; at its bytes the rise is "
            f"{c.rise_at_its_bytes / c.sdclip_rise:.2f} of it"
        )
    print(f"{len(points)} points in {time.perf_counter() - started:.0f} s")


def write(folder: Path, points: list[Point], unquantized: float, comparisons: list[Comparison]) -> None:
    rows = [asdict(p) for p in points]
    whole = {"unquantized_bpb": unquantized, "comparisons": [asdict(c) for c in comparisons], "points": rows}
    (folder / "rate_distortion.json").write_text(json.dumps(whole, indent=1) + "\n")
    draw(points, unquantized, folder / "rate_distortion.svg")


if __name__ == "__main__":
    main()
