"""The torch operators of pygolf's C++ core. The only module that imports the operator library ``pygolf._ops``.

Legend: M matrices of one shape, R rows (outputs of a layer), C columns (its inputs), K candidates for the scale of a
row.

The operators are registered as ``torch.ops.pygolf.*`` with fake implementations, so they can be traced and compiled.
``unpack``, ``dequantize`` and ``rd_solve`` run on CPU and CUDA, ``gptq_rows`` on CUDA, the others on CPU.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor

import pygolf._ops  # noqa: F401  registers the operators; torch must be imported before
from pygolf.errors import ArgumentError, NumericError, PygolfError

_ERRORS: dict[str, type[PygolfError]] = {"ArgumentError": ArgumentError, "NumericError": NumericError}


class GptqSolution(NamedTuple):
    """Result of :func:`gptq_solve`."""

    codes: Tensor
    """int8 [R, C], magnitude at most max_code."""
    scales: Tensor
    """float16 [R]: size of one code step."""
    choice: Tensor
    """int32 [R]: index of the row's best candidate."""
    error: Tensor
    """float32 [R]: (w - q s) H (w - q s)^T, with H as given, without damping."""
    damping: float
    """Share of the mean diagonal of H that was added to it; more than asked for if H could not be factored."""
    dead_columns: int
    """Columns with H_jj = 0; their codes are 0."""


def gptq_solve(
    weight: Tensor,
    hessian: Tensor,
    clips: Tensor,
    *,
    max_code: int = 31,
    damping: float = 0.005,
    block_columns: int = 128,
    threads: int = 0,
) -> GptqSolution:
    """Codes ``weight`` as integers times one step a row so that the layer's outputs change least (GPTQ).

    Each row is solved for every candidate clip, with step = float16(clip / max_code), and keeps the one with the
    least Hessian-weighted error. Columns are coded in order of descending H_jj; each makes up for the errors of those
    before it (Frantar et al., arXiv 2210.17323; csrc/include/pygolf/gptq.hpp has the formulas).

    weight: float32 [R, C]. hessian: float32 [C, C], mean of x x^T over the layer's inputs. clips: float32 [K, R],
    largest weight that each candidate codes. block_columns and threads (0: one a processor) change no result.
    All tensors on the CPU.

    Raises ArgumentError (shapes, dtypes, devices, options) and NumericError (NaN or infinity, values that float16 steps
    cannot express, a Hessian that is not positive definite even with damping 1).
    """
    for name, tensor in (("weight", weight), ("hessian", hessian), ("clips", clips)):
        if tensor.device.type != "cpu":
            raise ArgumentError(f"{name} is on {tensor.device}, expected cpu; pass {name}.cpu()")
    arguments = (weight, hessian, clips, max_code, damping, block_columns, threads)
    try:
        codes, scales, choice, error, info = torch.ops.pygolf.gptq_solve.default(*arguments)
    except RuntimeError as failure:
        raise _typed(failure) from None
    return GptqSolution(codes, scales, choice, error, float(info[0]), int(info[1]))


class RdSolution(NamedTuple):
    """Result of :func:`rd_solve`."""

    codes: Tensor
    """int16 [M, R, C]."""
    error: Tensor
    """float32 [M]: trace(G D H D^T), D = weight - decoded codes, H and G as damped; G = 1 without output_factor."""


def rd_solve(
    weight: Tensor,
    input_factor: Tensor,
    output_factor: Tensor | None,
    step_row: Tensor,
    step_col: Tensor,
    plain_col: Tensor | None = None,
    *,
    states: int = 1,
    rate_lambda: float = 0.0,
    threads: int = 0,
) -> RdSolution:
    """Codes ``weight`` in steps of step_row * step_col, with feedback of rounding errors along rows and columns.

    weight: float32 [M, R, C]. input_factor: float32 [M, C, C], upper Cholesky factor U of the inverse of the damped
    H = E[x x^T] over the layers' inputs, H^-1 = U^T U. output_factor: float32 [M, R, R], the same of G = E[g g^T] over
    the gradients of their outputs, or None for no feedback between rows. step_row: float32 [M, R]. step_col: float32
    [M, C]. plain_col: uint8 [M, C]. All on one device.

    states: 1 decodes code k to k * step. 4 and 8 are trellis codes: k stands for (2k + q) * step, where q and the
    path through the states follow from the codes before it in the row; at equal error they take 0.16 and 0.17 bit a
    weight less. Columns with a nonzero plain_col are left out of the trellis and decode to 2k * step: for columns whose
    weights are mostly below a step. rate_lambda: what a bit may cost in squared steps; 0 takes the least error.
    threads: 0 is one a processor; changes no result.

    csrc/include/pygolf/rd_quantize.hpp has the formulas; after GPTQ (arXiv 2210.17323), YAQA (arXiv 2505.22988) and
    the dependent quantization of VVC (ITU-T H.266). Raises ArgumentError (shapes, dtypes, options) and NumericError
    (NaN or infinity, factors or steps that are not positive, codes beyond 16 bits).
    """
    arguments = (weight, input_factor, output_factor, step_row, step_col, plain_col, states, rate_lambda, threads)
    try:
        codes, error = torch.ops.pygolf.rd_solve.default(*arguments)
    except RuntimeError as failure:
        raise _typed(failure) from None
    if bad := (~error.isfinite()).nonzero().flatten().tolist():  # how CUDA kernels tell
        raise NumericError(
            f"the error of matrix {bad[0]} is {error[bad[0]].item()}, expected a finite number: its weights or factors "
            "are not finite, factors or steps not positive, or codes beyond 16 bits; look at it, or take a larger step"
        )
    return RdSolution(codes, error)


def gptq_rows(weight: Tensor, factor: Tensor, steps: Tensor, *, max_code: int) -> tuple[Tensor, Tensor]:
    """GPTQ of every row for every candidate step, columns in the order given: codes int16 [M, K, R, C] and the sum over
    columns of e^2, float64 [M, K, R]. What :func:`pygolf.quant.gptq_batch.gptq_solve_batch` is made of; CUDA only.

    weight: float32 [M, R, C]. factor: float32 [M, C, C], upper Cholesky factor of the inverse Hessian. steps: float32
    [M, K, R]. Raises ArgumentError.
    """
    try:
        codes, error = torch.ops.pygolf.gptq_rows.default(weight, factor, steps, max_code)
    except RuntimeError as failure:
        raise _typed(failure) from None
    return codes, error


def pack(codes: Tensor, bits: int) -> Tensor:
    """Packs int8 ``codes`` of any shape, in row-major order, into ceil(count * bits / 8) bytes: uint8 [bytes].

    bits: 2 to 8; codes have magnitude at most 2^(bits-1) - 1. Layout: csrc/FORMAT.md. CPU only. Raises ArgumentError.
    """
    try:
        result: Tensor = torch.ops.pygolf.pack.default(codes, bits)
    except RuntimeError as failure:
        raise _typed(failure) from None
    return result


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """Reverses :func:`pack`: uint8 [bytes] -> int8 [count], on the same device. Raises ArgumentError."""
    try:
        result: Tensor = torch.ops.pygolf.unpack.default(packed, bits, count)
    except RuntimeError as failure:
        raise _typed(failure) from None
    return result


def dequantize(codes: Tensor, scales: Tensor) -> Tensor:
    """float32 [R, C] = int8 codes [R, C] times float16 scales [R], on the same device. Raises ArgumentError.

    One rounding an element, so the bits are the same on every device.
    """
    try:
        result: Tensor = torch.ops.pygolf.dequantize.default(codes, scales)
    except RuntimeError as failure:
        raise _typed(failure) from None
    return result


def _typed(failure: RuntimeError) -> Exception:
    """The core's exception in place of torch's RuntimeError, which carries its class as the first word."""
    match = re.match(r"(\w+): (.*)", str(failure), re.DOTALL)
    if match is None or match[1] not in _ERRORS:
        return failure
    return _ERRORS[match[1]](match[2])


def _fake_gptq_solve(
    weight: Tensor,
    hessian: Tensor,
    clips: Tensor,
    max_code: int,
    damping: float,
    block_columns: int,
    threads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows, columns = weight.shape
    return (
        weight.new_empty((rows, columns), dtype=torch.int8),
        weight.new_empty((rows,), dtype=torch.float16),
        weight.new_empty((rows,), dtype=torch.int32),
        weight.new_empty((rows,), dtype=torch.float32),
        weight.new_empty((2,), dtype=torch.float64),
    )


def _fake_rd_solve(
    weight: Tensor,
    input_factor: Tensor,
    output_factor: Tensor | None,
    step_row: Tensor,
    step_col: Tensor,
    plain_col: Tensor | None,
    states: int,
    rate_lambda: float,
    threads: int,
) -> tuple[Tensor, Tensor]:
    return weight.new_empty(weight.shape, dtype=torch.int16), weight.new_empty((weight.shape[0],))


def _fake_gptq_rows(weight: Tensor, factor: Tensor, steps: Tensor, max_code: int) -> tuple[Tensor, Tensor]:
    matrices, rows, columns = weight.shape
    shape = (matrices, steps.shape[1], rows)
    return weight.new_empty((*shape, columns), dtype=torch.int16), weight.new_empty(shape, dtype=torch.float64)


def _fake_pack(codes: Tensor, bits: int) -> Tensor:
    return codes.new_empty(((codes.numel() * bits + 7) // 8,), dtype=torch.uint8)


def _fake_unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    return packed.new_empty((count,), dtype=torch.int8)


def _fake_dequantize(codes: Tensor, scales: Tensor) -> Tensor:
    return codes.new_empty(codes.shape, dtype=torch.float32)


for _name, _fake in (
    ("gptq_solve", _fake_gptq_solve),
    ("rd_solve", _fake_rd_solve),
    ("gptq_rows", _fake_gptq_rows),
    ("pack", _fake_pack),
    ("unpack", _fake_unpack),
    ("dequantize", _fake_dequantize),
):
    if hasattr(torch.ops.pygolf, _name):  # gptq_rows is in CUDA builds only
        torch.library.register_fake(f"pygolf::{_name}", _fake)
