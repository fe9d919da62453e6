"""Codes for a whole model: GPTQ for the block matrices, rounding for tables, fp16 for vectors.

Shapes: a matrix has R rows (outputs) and C columns (inputs); K clip candidates a row.
Sources: GPTQ, arXiv 2210.17323; the choice among clips by Hessian-weighted error follows RECIPE 6;
SDClip (clip = k · std), parameter-golf's later records.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pygolf import ops
from pygolf._core import ArtifactWriter
from pygolf.config import QuantConfig
from pygolf.errors import NumericError
from pygolf.model.gpt import GPT, parameter_role
from pygolf.progress import Reporter
from pygolf.quant.gptq_batch import gptq_solve_batch


@dataclass(frozen=True)
class QuantizedMatrix:
    """w ≈ codes · scales: int8 codes [R, C], one fp16 scale a row, on the CPU."""

    codes: Tensor
    scales: Tensor
    bits: int
    error: float
    """trace((W - Q) H (W - Q)ᵀ); for a rounded table, with H = I."""
    importance: Tensor
    """diag H [C]: what an error in a column costs; ones for a table."""

    def dequantize(self) -> Tensor:
        return ops.dequantize(self.codes, self.scales)


@dataclass(frozen=True)
class QuantizedModel:
    """All parameters by name: coded matrices and plain fp16 vectors."""

    matrices: dict[str, QuantizedMatrix]
    vectors: dict[str, Tensor]

    @property
    def codes(self) -> int:
        return sum(m.codes.numel() for m in self.matrices.values())

    def add_to(self, writer: ArtifactWriter, config: QuantConfig) -> None:
        """Adds the matrices to an artifact."""
        for name, m in self.matrices.items():
            writer.add_rows(name, m.codes.numpy(), m.scales.numpy(), bits=m.bits, codec=config.codec)


def clip_candidates(weight_RC: Tensor, config: QuantConfig) -> Tensor:
    """Candidate clips of each row, fp32 [K, R]: quantiles of |w| and multiples of the row's standard deviation."""
    magnitudes = weight_RC.abs()
    quantiles = torch.tensor(config.clip_quantiles, dtype=weight_RC.dtype, device=weight_RC.device)
    clips = [torch.quantile(magnitudes, quantiles, dim=1)] if len(quantiles) else []
    deviation = weight_RC.std(dim=1, correction=0)
    clips += [(k * deviation)[None] for k in config.clip_stds]
    return torch.cat(clips).contiguous()


def quantize_model(
    model: GPT,
    hessians: dict[str, Tensor],
    config: QuantConfig,
    *,
    coarseness: float,
    threads: int,
    reporter: Reporter,
) -> QuantizedModel:
    """Codes of every parameter. `coarseness` multiplies every clip of the block matrices: larger steps, fewer bytes."""
    named = {name: p.detach().float() for name, p in model.named_parameters()}
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, weight in named.items():
        if parameter_role(name) == "matrix":
            groups.setdefault(tuple(weight.shape), []).append(name)
    matrices: dict[str, QuantizedMatrix] = {}
    reporter.stage("gptq", len(hessians))
    for names in groups.values():
        matrices |= _solve_group(names, named, hessians, config, coarseness, threads, reporter)
        reporter.advance(len(matrices), len(hessians))
    for name, weight in named.items():
        if parameter_role(name) in ("table", "projection"):
            matrices[name] = round_rows(weight.cpu(), config.table_bits)
    vectors = {name: p.half().cpu() for name, p in named.items() if parameter_role(name) == "vector"}
    return QuantizedModel({name: matrices[name] for name in named if name in matrices}, vectors)


def _solve_group(
    names: list[str],
    weights: dict[str, Tensor],
    hessians: dict[str, Tensor],
    config: QuantConfig,
    coarseness: float,
    threads: int,
    reporter: Reporter,
) -> dict[str, QuantizedMatrix]:
    """GPTQ of matrices of one shape. Says whose damping had to rise; raises NumericError, naming the matrix, on NaN."""
    try:
        solutions = gptq_solve_batch(
            torch.stack([weights[name] for name in names]),
            torch.stack([hessians[name].float() for name in names]),
            torch.stack([clip_candidates(weights[name], config) * coarseness for name in names]),
            max_code=2 ** (config.matrix_bits - 1) - 1,
            damping=config.damping,
            threads=threads,
        )
    except NumericError as error:
        index, _, reason = str(error).removeprefix("matrix ").partition(": ")
        raise NumericError(f"{names[int(index)]}: {reason}") from None
    solved: dict[str, QuantizedMatrix] = {}
    for name, solution in zip(names, solutions, strict=True):
        if solution.damping > config.damping * 1.01:
            reporter.say(f"{name}: its Hessian is nearly singular; damping raised to {solution.damping:g}")
        solved[name] = QuantizedMatrix(
            solution.codes.cpu(),
            solution.scales.cpu(),
            config.matrix_bits,
            float(solution.error.sum()),
            hessians[name].diagonal().cpu(),
        )
    return solved


def round_rows(weight_RC: Tensor, bits: int) -> QuantizedMatrix:
    """Rounding to nearest with scale max|w| / (2^(bits-1) - 1) in fp16, for tables that have no Hessian."""
    largest = 2 ** (bits - 1) - 1
    scales = (weight_RC.abs().amax(dim=1) / largest).half()
    safe = torch.where(scales == 0, torch.ones_like(scales), scales).float()
    codes = (weight_RC / safe[:, None]).round().clamp(-largest, largest).to(torch.int8)
    error = (weight_RC - codes * scales.float()[:, None]).double().square().sum()
    return QuantizedMatrix(codes, scales, bits, float(error), torch.ones(weight_RC.size(1)))
