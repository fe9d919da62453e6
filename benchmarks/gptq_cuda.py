"""The whole model's matrices on one GPU: pygolf's kernels beside a plain torch loop on the same device, interleaved.

    python benchmarks/gptq_cuda.py [--weights model.safetensors] [--hessians hessians.safetensors] [--json FILE]

All 66 matrices of the record model, batched by shape in both. `one-sided`, `two-sided`, `trellis` and `rate` are the
rate-distortion quantizer at about 3 bits a weight, factors given, codes copied to pinned memory; `record` is GPTQ with
8 clip candidates a row, the factorisation included. `factors` is the upper Cholesky factor of every inverse Hessian.
The plain loop is the textbook's: column by column in blocks of 128; two-sided and trellis have none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from gptq import MAX_CODE, load_model
from torch import Tensor

from pygolf import ops
from pygolf.quant.gptq_batch import gptq_solve_batch

CANDIDATES = 8
GOALS = {"one-sided": 0.1, "two-sided": 1.0, "record": 0.2}
"""Seconds."""


@dataclass(frozen=True)
class Group:
    """Matrices of one shape on the device; see ops.rd_solve and gptq_solve_batch."""

    weight: Tensor
    hessian: Tensor
    clips: Tensor
    column_factor: Tensor
    row_factor: Tensor
    step_row: Tensor
    step_col: Tensor
    codes: Tensor
    """int16 [M, R, C] in pinned memory."""


@dataclass(frozen=True)
class Result:
    seconds: float
    torch_seconds: float | None
    goal: float | None

    @property
    def ratio(self) -> float | None:
        return None if self.torch_seconds is None else self.torch_seconds / self.seconds


def upper_factors(hessian: Tensor, damping: float) -> Tensor:
    """U [M, C, C] with U^T U = (H + damping)^-1. U = R^-1 with H = R R^T, so no inverse is factored."""
    size = hessian.size(1)
    identity = torch.eye(size, dtype=torch.float64, device=hessian.device)
    damped = hessian.double() + damping * hessian.diagonal(dim1=1, dim2=2).double().mean(1)[:, None, None] * identity
    root = torch.linalg.cholesky(damped.flip(1, 2)).flip(1, 2)
    return torch.linalg.solve_triangular(root, identity.expand_as(root), upper=True).float()


def load_groups(weights: Path | None, hessians: Path | None) -> list[Group]:
    shapes: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
    for block in load_model(weights, hessians):
        for matrix in block:
            shapes.setdefault(tuple(matrix.weight.shape), []).append((matrix.weight, matrix.hessian))
    return [group_of(*(torch.stack(t).cuda() for t in zip(*matrices, strict=True))) for matrices in shapes.values()]


def group_of(weight: Tensor, hessian: Tensor) -> Group:
    matrices, rows, _ = weight.shape
    clips = weight.abs().amax(2)[:, None] * torch.linspace(1, 0.6, CANDIDATES, device="cuda")[:, None]
    random = torch.Generator("cuda").manual_seed(0)
    gradients = torch.randn(matrices, 2 * rows, rows, generator=random, device="cuda")
    column_factor = upper_factors(hessian, 0.01)
    row_factor = upper_factors(gradients.mT @ gradients / (2 * rows), 0.05)
    step_col = column_factor.diagonal(dim1=1, dim2=2)
    step_row = row_factor.diagonal(dim1=1, dim2=2)
    size = (weight / step_row[:, :, None] / step_col[:, None]).std(dim=(1, 2))
    codes = torch.empty(weight.shape, dtype=torch.int16, pin_memory=True)
    step_row = step_row * (0.4 * size[:, None])
    return Group(weight, hessian, clips, column_factor, row_factor, step_row, step_col.contiguous(), codes)


def rate_distortion(group: Group, *, two_sided: bool = False, states: int = 1, rate_lambda: float = 0.0) -> None:
    row_factor = group.row_factor if two_sided else None
    arguments = (group.weight, group.column_factor, row_factor, group.step_row, group.step_col)
    solution = ops.rd_solve(*arguments, states=states, rate_lambda=rate_lambda)
    group.codes.copy_(solution.codes, non_blocking=True)


def rate_distortion_in_torch(group: Group) -> None:
    steps = group.step_row[:, :, None] * group.step_col[:, None]
    group.codes.copy_(code_columns(group.weight, group.column_factor, steps), non_blocking=True)


def code_columns(weight: Tensor, upper: Tensor, steps: Tensor, most: int = 32767, block: int = 128) -> Tensor:
    """Codes of the textbook's loop; all [M, R, C] but upper [M, C, C]."""
    weight, codes = weight.clone(), torch.empty_like(weight)
    for begin in range(0, weight.size(2), block):
        end = min(begin + block, weight.size(2))
        errors = torch.empty_like(weight[:, :, begin:end])
        for j in range(begin, end):
            codes[:, :, j] = (weight[:, :, j] / steps[:, :, j]).round().clamp(-most, most)
            errors[:, :, j - begin] = (weight[:, :, j] - codes[:, :, j] * steps[:, :, j]) / upper[:, j, j, None]
            weight[:, :, j:end] -= errors[:, :, j - begin, None] * upper[:, None, j, j:end]
        weight[:, :, end:].baddbmm_(errors, upper[:, begin:end, end:], alpha=-1)
    return codes.to(torch.int16)


def record(group: Group) -> None:
    gptq_solve_batch(group.weight, group.hessian, group.clips, max_code=MAX_CODE)


def record_in_torch(group: Group) -> None:
    """All candidates of a row side by side."""
    order = torch.argsort(group.hessian.diagonal(dim1=1, dim2=2), dim=1, descending=True)
    every = torch.arange(len(order), device="cuda")[:, None]
    hessian = group.hessian[every[:, :, None], order[:, :, None], order[:, None]]
    weight = group.weight.gather(2, order[:, None].expand_as(group.weight)).repeat(1, CANDIDATES, 1)
    steps = (group.clips / MAX_CODE).half().float().flatten(1)[:, :, None].expand_as(weight)
    residual = weight - steps * code_columns(weight, upper_factors(hessian, 0.005), steps, MAX_CODE)
    ((residual @ hessian) * residual).sum(2).unflatten(1, (CANDIDATES, -1)).argmin(1)


def factors(group: Group) -> None:
    upper_factors(group.hessian, 0.01)


def seconds_of(work: Callable[[Group], None], groups: list[Group]) -> float:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for group in groups:
        work(group)
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def measure(groups: list[Group], rounds: int) -> dict[str, Result]:
    works: dict[str, tuple[Callable[[Group], None], Callable[[Group], None] | None]] = {
        "factors": (factors, None),
        "one-sided": (rate_distortion, rate_distortion_in_torch),
        "two-sided": (lambda g: rate_distortion(g, two_sided=True), None),
        "one-sided, trellis": (lambda g: rate_distortion(g, states=8), None),
        "one-sided, trellis, rate": (lambda g: rate_distortion(g, states=8, rate_lambda=0.2), None),
        "two-sided, trellis": (lambda g: rate_distortion(g, two_sided=True, states=8), None),
        "record": (record, record_in_torch),
    }
    results = {}
    for name, (ours, theirs) in works.items():
        seconds_of(ours, groups)
        pairs = [(seconds_of(ours, groups), seconds_of(theirs, groups) if theirs else 0.0) for _ in range(rounds)]
        medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
        results[name] = Result(medians[0], medians[1] if theirs else None, GOALS.get(name))
        print(line_of(name, results[name]), flush=True)
    return results


def line_of(name: str, result: Result) -> str:
    goal = f"  goal {1e3 * result.goal:g} ms" if result.goal else ""
    loop = f"  torch loop {1e3 * result.torch_seconds:.0f} ms, ratio {result.ratio:.0f}" if result.torch_seconds else ""
    return f"{name:<26}{1e3 * result.seconds:8.2f} ms{goal}{loop}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="safetensors with the model's weights")
    parser.add_argument("--hessians", type=Path, help="safetensors with the Hessians")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/gptq_cuda.json"))
    arguments = parser.parse_args()
    groups = load_groups(arguments.weights, arguments.hessians)
    results = measure(groups, arguments.rounds)
    machine = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    figures = {name: asdict(result) | {"ratio": result.ratio} for name, result in results.items()}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"machine": machine, "results": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
