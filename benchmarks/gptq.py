"""GPTQ of the record model's 66 block matrices with all clip candidates, against plain column-block GPTQ in torch.

    python benchmarks/gptq.py [--weights W.safetensors] [--hessians H.safetensors] [--json OUT.json]

Weights and Hessians have the names of the model's parameters (`blocks.3.attn.q.weight`); without files both are random,
with the spread that trained ones have. Each round solves the whole model with pygolf and then
the first --torch-blocks blocks with both, one after the other; medians over the rounds are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from pygolf import ops
from pygolf.config import QuantConfig
from pygolf.quant.gptq import clip_candidates

BLOCKS = 11
SHAPES = {
    "attn.q": (512, 512),
    "attn.k": (256, 512),
    "attn.v": (256, 512),
    "attn.out": (512, 512),
    "mlp.up": (1536, 512),
    "mlp.down": (512, 1536),
}  # (R rows, C columns)
MAX_CODE = 31
GOAL_SECONDS = 15.0


@dataclass(frozen=True)
class Matrix:
    """One problem: weight [R, C], Hessian [C, C], clips [K, R]."""

    weight: Tensor
    hessian: Tensor
    clips: Tensor


@dataclass(frozen=True, kw_only=True)
class Result:
    """Medians over the rounds, in seconds, and what both solvers made of the compared blocks."""

    matrices: int
    candidates: int
    threads: int
    seconds: float
    torch_blocks: int
    blocks_seconds: float
    torch_blocks_seconds: float
    error: float
    torch_error: float

    @property
    def ratio(self) -> float:
        return self.torch_blocks_seconds / self.blocks_seconds


def random_weight(rows: int, columns: int, random: torch.Generator) -> Tensor:
    """Rows and columns of different size, tails a little heavier than normal."""
    normal = torch.randn(rows, columns, generator=random)
    row_size = (0.2 * torch.randn(rows, 1, generator=random)).exp()
    column_size = (0.3 * torch.randn(columns, generator=random)).exp()
    return 0.03 * normal * (1 + 0.1 * normal.abs()) * row_size * column_size


def random_hessian(columns: int, random: torch.Generator) -> Tensor:
    """Mean of x x^T over inputs with a few common directions and columns of different size."""
    inputs = torch.randn(2 * columns, columns, generator=random)
    inputs += torch.randn(2 * columns, 32, generator=random) @ torch.randn(32, columns, generator=random) / 4
    inputs *= (0.5 * torch.randn(columns, generator=random)).exp()
    return inputs.T @ inputs / len(inputs)


def load_model(weights_file: Path | None, hessians_file: Path | None) -> list[list[Matrix]]:
    """The matrices of every block."""
    random = torch.Generator().manual_seed(0)
    weights = load_file(weights_file) if weights_file else {}
    hessians = load_file(hessians_file) if hessians_file else {}
    model = []
    for block in range(BLOCKS):
        matrices = []
        for module, (rows, columns) in SHAPES.items():
            name = f"blocks.{block}.{module}.weight"
            weight = weights[name].float() if weights else random_weight(rows, columns, random)
            hessian = hessians[name] if hessians else random_hessian(columns, random)
            matrices.append(Matrix(weight, hessian, clip_candidates(weight, QuantConfig())))
        model.append(matrices)
    return model


def solve(matrix: Matrix, threads: int) -> float:
    """Error of pygolf's solution, trace((W - Q) H (W - Q)^T)."""
    solution = ops.gptq_solve(matrix.weight, matrix.hessian, matrix.clips, max_code=MAX_CODE, threads=threads)
    return float(solution.error.double().sum())


def solve_in_torch(matrix: Matrix, _threads: int) -> float:
    """The same by the textbook: one factorisation, then each candidate column by column in blocks of 128."""
    weight, hessian = matrix.weight, matrix.hessian
    order = torch.argsort(hessian.diagonal(), descending=True)
    damped = hessian[order][:, order] + 0.005 * hessian.diagonal().mean() * torch.eye(len(order))
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    errors = []
    for clip in matrix.clips:
        values = torch.empty_like(weight)
        values[:, order] = quantize_columns(weight[:, order], upper, (clip / MAX_CODE).half().float())
        residual = weight - values
        errors.append(((residual @ hessian) * residual).sum(1))
    return float(torch.stack(errors).amin(0).double().sum())


def quantize_columns(weight: Tensor, upper: Tensor, steps: Tensor, block: int = 128) -> Tensor:
    """Values [R, C] of one candidate, columns in coding order; weight is consumed."""
    values = torch.empty_like(weight)
    for begin in range(0, weight.shape[1], block):
        end = min(begin + block, weight.shape[1])
        errors = torch.empty(len(weight), end - begin)
        for j in range(begin, end):
            values[:, j] = (weight[:, j] / steps).round().clamp(-MAX_CODE, MAX_CODE) * steps
            errors[:, j - begin] = (weight[:, j] - values[:, j]) / upper[j, j]
            weight[:, j:end] -= torch.outer(errors[:, j - begin], upper[j, j:end])
        weight[:, end:] -= errors @ upper[begin:end, end:]
    return values


def timed(solver: Callable[[Matrix, int], float], model: list[list[Matrix]], threads: int) -> tuple[float, float]:
    """Seconds and total error over the model's matrices."""
    begin = time.perf_counter()
    error = sum(solver(matrix, threads) for block in model for matrix in block)
    return time.perf_counter() - begin, error


def measure(model: list[list[Matrix]], torch_blocks: int, rounds: int, threads: int) -> Result:
    whole, ours, theirs = [], [], []
    error = torch_error = 0.0
    for _ in range(rounds):
        whole.append(timed(solve, model, threads)[0])
        seconds, error = timed(solve, model[:torch_blocks], threads)
        ours.append(seconds)
        seconds, torch_error = timed(solve_in_torch, model[:torch_blocks], threads)
        theirs.append(seconds)
    return Result(
        matrices=sum(len(block) for block in model),
        candidates=len(model[0][0].clips),
        threads=threads or os.cpu_count() or 1,
        seconds=statistics.median(whole),
        torch_blocks=torch_blocks,
        blocks_seconds=statistics.median(ours),
        torch_blocks_seconds=statistics.median(theirs),
        error=error,
        torch_error=torch_error,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="safetensors with the model's weights")
    parser.add_argument("--hessians", type=Path, help="safetensors with the Hessians")
    parser.add_argument("--torch-blocks", type=int, default=1, help="blocks that torch solves too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: one a processor")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/gptq.json"))
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    model = load_model(arguments.weights, arguments.hessians)
    result = measure(model, arguments.torch_blocks, arguments.rounds, arguments.threads)
    print(
        f"{result.matrices} matrices x {result.candidates} candidates, {result.threads} threads: "
        f"{result.seconds:.2f} s (goal {GOAL_SECONDS:g} s)\n"
        f"{result.torch_blocks} of {BLOCKS} blocks: pygolf {result.blocks_seconds:.3f} s, "
        f"torch {result.torch_blocks_seconds:.2f} s, ratio {result.ratio:.1f}\n"
        f"total error: pygolf {result.error:.6g}, torch {result.torch_error:.6g}"
    )
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine, "result": asdict(result) | {"ratio": result.ratio}}
    arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
