"""Norms of the residual stream with what happens around them, a row or a few to a program.

Sums over tokens for the gradients of vectors: each program adds up its own rows, and the caller the programs' sums.
Shapes as in `plain`. A tile is ROWS tokens by BLOCK_D channels, BLOCK_D the power of two that holds D.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pygolf.model.attention import RMS_EPSILON

TILE = 2048  # elements of a tile
PARTIAL_SUMS = 1056  # programs that add up sums over tokens: 8 for each of 132 processors


@triton.jit
def _tile(pointer, row, column, inside, D: tl.constexpr):
    return tl.load(pointer + row * D + column, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _mix_norm(
    x, x0, mix, skip, skip_weight, mixed, normed, rstd, scale, N,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, EPSILON: tl.constexpr, HAS_SKIP: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, BLOCK_D)[None, :]
    inside = (row < N) & (column < D)
    source = _tile(x, row, column, inside, D)
    if HAS_SKIP:
        source += tl.load(skip_weight + column, mask=column < D) * _tile(skip, row, column, inside, D)
    value = tl.load(mix + column, mask=column < D) * source
    value += tl.load(mix + D + column, mask=column < D) * _tile(x0, row, column, inside, D)
    value = tl.where(inside, value, 0.0)
    r = 1.0 / tl.sqrt(tl.sum(value * value, axis=1) / D + EPSILON)
    tl.store(mixed + row * D + column, value.to(mixed.dtype.element_ty), mask=inside)
    tl.store(normed + row * D + column, (value * (r * scale)[:, None]).to(normed.dtype.element_ty), mask=inside)
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    tl.store(rstd + rows, r, mask=rows < N)


def mix_norm(
    x_ND: Tensor, x0_ND: Tensor, mix_2D: Tensor, scale: float, skip_ND: Tensor | None, skip_weight_D: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    n, d = x_ND.shape
    mixed, normed, rstd = torch.empty_like(x_ND), torch.empty_like(x_ND), _per_row(x_ND)
    block, rows = _blocks(d)
    _mix_norm[(triton.cdiv(n, rows),)](
        x_ND, x0_ND, mix_2D, skip_ND, skip_weight_D, mixed, normed, rstd, scale, n,
        D=d, BLOCK_D=block, ROWS=rows, EPSILON=RMS_EPSILON, HAS_SKIP=skip_ND is not None,
    )  # fmt: skip
    return mixed, normed, rstd


def _per_row(x_ND: Tensor) -> Tensor:
    return torch.empty(len(x_ND), device=x_ND.device, dtype=torch.float32)


def _blocks(d: int) -> tuple[int, int]:
    """(BLOCK_D, ROWS)"""
    block = triton.next_power_of_2(d)
    return block, max(1, TILE // block)


@triton.jit
def _mix_norm_backward(
    dmixed, dnormed, rstd, x, x0, mix, skip, skip_weight, dx0, extra, dx, dskip, sums, scale, N, rows_each,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr,
    HAS_SKIP: tl.constexpr, HAS_DX0: tl.constexpr, HAS_EXTRA: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, BLOCK_D)[None, :]
    known = column < D
    m0, m1 = tl.load(mix + column, mask=known, other=0.0), tl.load(mix + D + column, mask=known, other=0.0)
    w = tl.load(skip_weight + column, mask=known, other=0.0) if HAS_SKIP else m0
    sum_m0 = tl.zeros([ROWS, BLOCK_D], tl.float32)
    sum_m1 = tl.zeros([ROWS, BLOCK_D], tl.float32)
    sum_w = tl.zeros([ROWS, BLOCK_D], tl.float32)
    begin = tl.program_id(0).to(tl.int64) * rows_each
    for start in tl.range(0, rows_each, ROWS, num_stages=3):
        rows = begin + start + tl.arange(0, ROWS)
        row = rows[:, None]
        inside = (row < N) & known
        at = row * D + column
        source, first = _tile(x, row, column, inside, D), _tile(x0, row, column, inside, D)
        if HAS_SKIP:
            skipped = _tile(skip, row, column, inside, D)
            source += w * skipped
        r = tl.load(rstd + rows, mask=rows < N, other=0.0)[:, None]
        unit = (m0 * source + m1 * first) * r
        dunit = _tile(dnormed, row, column, inside, D) * scale
        mean = tl.sum(dunit * unit, axis=1)[:, None] / D
        d = _tile(dmixed, row, column, inside, D) + (dunit - unit * mean) * r
        sum_m0 += d * source
        sum_m1 += d * first
        to_first = m1 * d
        if HAS_DX0:
            to_first += _tile(dx0, row, column, inside, D)
        tl.store(dx0 + at, to_first.to(dx0.dtype.element_ty), mask=inside)
        d *= m0
        if HAS_SKIP:
            sum_w += d * skipped
            tl.store(dskip + at, (w * d).to(dskip.dtype.element_ty), mask=inside)
        if HAS_EXTRA:
            d += _tile(extra, row, column, inside, D)
        tl.store(dx + at, d.to(dx.dtype.element_ty), mask=inside)
    out = sums + tl.program_id(0).to(tl.int64) * 3 * D + tl.arange(0, BLOCK_D)
    inside_D = tl.arange(0, BLOCK_D) < D
    tl.store(out, tl.sum(sum_m0, axis=0), mask=inside_D)
    tl.store(out + D, tl.sum(sum_m1, axis=0), mask=inside_D)
    tl.store(out + 2 * D, tl.sum(sum_w, axis=0), mask=inside_D)


def mix_norm_backward(
    dmixed_ND: Tensor,
    dnormed_ND: Tensor,
    rstd_N: Tensor,
    x_ND: Tensor,
    x0_ND: Tensor,
    mix_2D: Tensor,
    scale: float,
    skip_ND: Tensor | None,
    skip_weight_D: Tensor | None,
    dx0_ND: Tensor | None,
    extra_ND: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    n, d = x_ND.shape
    block, rows = _blocks(d)
    rows_each, programs = share_rows(n, rows, PARTIAL_SUMS)
    dskip = None if skip_ND is None else torch.empty_like(x_ND)
    dx0 = torch.empty_like(x_ND) if dx0_ND is None else dx0_ND
    sums = torch.empty(programs, 3, d, device=x_ND.device, dtype=torch.float32)
    _mix_norm_backward[(programs,)](
        dmixed_ND, dnormed_ND, rstd_N, x_ND, x0_ND, mix_2D, skip_ND, skip_weight_D, dx0, extra_ND, dmixed_ND, dskip,
        sums, scale, n, rows_each,
        D=d, BLOCK_D=block, ROWS=rows,
        HAS_SKIP=skip_ND is not None, HAS_DX0=dx0_ND is not None, HAS_EXTRA=extra_ND is not None, num_warps=8,
    )  # fmt: skip
    return dmixed_ND, dx0, dskip, sums


def share_rows(n: int, rows: int, programs: int) -> tuple[int, int]:
    """(rows of each program, programs) where up to `programs` loop over tiles of `rows`."""
    each = rows * triton.cdiv(triton.cdiv(n, rows), programs)
    return each, triton.cdiv(n, each)


@triton.jit
def _norm(x, normed, rstd, scale, N, D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, EPSILON: tl.constexpr):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row, column = rows[:, None], tl.arange(0, BLOCK_D)[None, :]
    inside = (row < N) & (column < D)
    value = _tile(x, row, column, inside, D)
    r = 1.0 / tl.sqrt(tl.sum(value * value, axis=1) / D + EPSILON)
    tl.store(normed + row * D + column, (value * (r * scale)[:, None]).to(normed.dtype.element_ty), mask=inside)
    tl.store(rstd + rows, r, mask=rows < N)


def norm(x_ND: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    n, d = x_ND.shape
    normed, rstd = torch.empty_like(x_ND), _per_row(x_ND)
    block, rows = _blocks(d)
    _norm[(triton.cdiv(n, rows),)](x_ND, normed, rstd, scale, n, D=d, BLOCK_D=block, ROWS=rows, EPSILON=RMS_EPSILON)
    return normed, rstd


@triton.jit
def _norm_backward(
    dnormed, normed, rstd, residual, dx, scale, N,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, HAS_RESIDUAL: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row, column = rows[:, None], tl.arange(0, BLOCK_D)[None, :]
    inside = (row < N) & (column < D)
    unit = _tile(normed, row, column, inside, D) / scale
    dunit = _tile(dnormed, row, column, inside, D) * scale
    mean = tl.sum(dunit * unit, axis=1)[:, None] / D
    d = (dunit - unit * mean) * tl.load(rstd + rows, mask=rows < N, other=0.0)[:, None]
    if HAS_RESIDUAL:
        d += _tile(residual, row, column, inside, D)
    tl.store(dx + row * D + column, d.to(dx.dtype.element_ty), mask=inside)


def norm_backward(
    dnormed_ND: Tensor, normed_ND: Tensor, rstd_N: Tensor, scale: float, residual_ND: Tensor | None
) -> Tensor:
    n, d = dnormed_ND.shape
    block, rows = _blocks(d)
    dx = torch.empty_like(dnormed_ND) if residual_ND is None else residual_ND
    _norm_backward[(triton.cdiv(n, rows),)](
        dnormed_ND, normed_ND, rstd_N, residual_ND, dx, scale, n,
        D=d, BLOCK_D=block, ROWS=rows, HAS_RESIDUAL=residual_ND is not None,
    )  # fmt: skip
    return dx
