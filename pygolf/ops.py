"""The torch operators of pygolf's C++ core. The only module that imports the operator library ``pygolf._ops``.

Legend: R rows (outputs of a layer), C columns (its inputs), K candidates for the scale of a row.

The operators are registered as ``torch.ops.pygolf.*`` with fake implementations, so they can be traced and compiled.
``unpack`` and ``dequantize`` run on CPU and CUDA, the others on CPU.
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


def _fake_pack(codes: Tensor, bits: int) -> Tensor:
    return codes.new_empty(((codes.numel() * bits + 7) // 8,), dtype=torch.uint8)


def _fake_unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    return packed.new_empty((count,), dtype=torch.int8)


def _fake_dequantize(codes: Tensor, scales: Tensor) -> Tensor:
    return codes.new_empty(codes.shape, dtype=torch.float32)


for _name, _fake in (
    ("gptq_solve", _fake_gptq_solve),
    ("pack", _fake_pack),
    ("unpack", _fake_unpack),
    ("dequantize", _fake_dequantize),
):
    torch.library.register_fake(f"pygolf::{_name}", _fake)
