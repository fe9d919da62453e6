"""Embedding tables at one end of the model and the soft-capped cross-entropy at the other. Shapes as in `plain`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pygolf.model.attention import RMS_EPSILON
from pygolf.model.kernels.fused_norm import PARTIAL_SUMS, share_rows

RUN = 32  # tokens of a program of `add_rows`


@triton.jit
def _embedded(ids, rows, table, bigram, token, column, inside, D: tl.constexpr, EPSILON: tl.constexpr):
    """(unit-rms sum of both embeddings, 1 / rms) of each token of a tile."""
    known = tl.max(inside.to(tl.int32), axis=1)[:, None] > 0
    id, row = tl.load(ids + token, mask=known, other=0), tl.load(rows + token, mask=known, other=0)
    value = tl.load(table + id * D + column, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bigram + row * D + column, mask=inside, other=0.0).to(tl.float32)
    r = 1.0 / tl.sqrt(tl.sum(value * value, axis=1)[:, None] / D + EPSILON)
    return value * r, r


@triton.jit
def _embed(
    ids, rows, table, bigram, gate, out, N, T,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, EPSILON: tl.constexpr,
):  # fmt: skip
    token = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, BLOCK_D)[None, :]
    inside = (token < N) & (column < D)
    g = tl.sigmoid(tl.load(gate + column, mask=column < D, other=0.0))
    x, _ = _embedded(ids, rows, table, bigram, token, column, inside, D, EPSILON)
    before, _ = _embedded(ids, rows, table, bigram, token - 1, column, inside & (token % T > 0), D, EPSILON)
    tl.store(out + token * D + column, ((1 - g) * x + g * before).to(out.dtype.element_ty), mask=inside)


def embed(ids_BT: Tensor, rows_BT: Tensor, table_VD: Tensor, bigram_RD: Tensor, gate_D: Tensor) -> Tensor:
    (batch, t), d = ids_BT.shape, table_VD.size(1)
    block = triton.next_power_of_2(d)
    rows = max(1, 1024 // block)
    out = table_VD.new_empty(batch * t, d)
    _embed[(triton.cdiv(batch * t, rows),)](
        ids_BT.contiguous(), rows_BT.contiguous(), table_VD, bigram_RD, gate_D, out, batch * t, t,
        D=d, BLOCK_D=block, ROWS=rows, EPSILON=RMS_EPSILON,
    )  # fmt: skip
    return out


@triton.jit
def _embed_backward(
    dx0, ids, rows, table, bigram, gate, dtotal, sums, N, T, rows_each,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, EPSILON: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, BLOCK_D)[None, :]
    g = tl.sigmoid(tl.load(gate + column, mask=column < D, other=0.0))
    sum_gate = tl.zeros([ROWS, BLOCK_D], tl.float32)
    begin = tl.program_id(0).to(tl.int64) * rows_each
    for start in tl.range(0, rows_each, ROWS, num_stages=2):
        token = (begin + start + tl.arange(0, ROWS))[:, None]
        inside = (token < N) & (column < D)
        at = token * D + column
        x, r = _embedded(ids, rows, table, bigram, token, column, inside, D, EPSILON)
        before, _ = _embedded(ids, rows, table, bigram, token - 1, column, inside & (token % T > 0), D, EPSILON)
        d = tl.load(dx0 + at, mask=inside, other=0.0).to(tl.float32)
        after = tl.load(dx0 + at + D, mask=inside & (token % T < T - 1), other=0.0).to(tl.float32)
        sum_gate += d * (before - x)
        dunit = (1 - g) * d + g * after
        dvalue = (dunit - x * (tl.sum(dunit * x, axis=1)[:, None] / D)) * r
        tl.store(dtotal + at, dvalue.to(dtotal.dtype.element_ty), mask=inside)
    column_D = tl.arange(0, BLOCK_D)
    tl.store(sums + tl.program_id(0).to(tl.int64) * D + column_D, tl.sum(sum_gate, axis=0), mask=column_D < D)


def embed_backward(
    dx0_ND: Tensor, ids_BT: Tensor, rows_BT: Tensor, table_VD: Tensor, bigram_RD: Tensor, gate_D: Tensor
) -> tuple[Tensor, Tensor]:
    n, d = dx0_ND.shape
    block = triton.next_power_of_2(d)
    rows = max(1, 512 // block)
    rows_each, programs = share_rows(n, rows, 4 * PARTIAL_SUMS)
    dtotal, sums = torch.empty_like(dx0_ND), gate_D.new_empty(programs, d)
    _embed_backward[(programs,)](
        dx0_ND, ids_BT.contiguous(), rows_BT.contiguous(), table_VD, bigram_RD, gate_D, dtotal, sums, n,
        ids_BT.size(1), rows_each, D=d, BLOCK_D=block, ROWS=rows, EPSILON=RMS_EPSILON, num_warps=2,
    )  # fmt: skip
    g = torch.sigmoid(gate_D)
    return dtotal, sums.sum(0) * g * (1 - g)


def sort_index(index_N: Tensor) -> tuple[Tensor, Tensor]:
    return torch.sort(index_N.int())


@triton.jit
def _add_rows(d, ordered, token, out, N, stride, D: tl.constexpr, BLOCK_D: tl.constexpr, RUN: tl.constexpr):
    """Adds up the tokens of one index in registers and then to memory once, RUN tokens a program."""
    begin = tl.program_id(0) * RUN
    column = tl.arange(0, BLOCK_D)
    current = tl.load(ordered + begin).to(tl.int64)
    total = tl.zeros([BLOCK_D], tl.float32)
    for i in range(begin, tl.minimum(begin + RUN, N)):
        index = tl.load(ordered + i).to(tl.int64)
        row = tl.load(d + tl.load(token + i) * stride + column, mask=column < D, other=0.0).to(tl.float32)
        if index != current:
            tl.atomic_add(out + current * D + column, total, mask=column < D, sem="relaxed")
            total = tl.zeros([BLOCK_D], tl.float32)
            current = index
        total += row
    tl.atomic_add(out + current * D + column, total, mask=column < D, sem="relaxed")


def add_rows(d_ND: Tensor, index: tuple[Tensor, Tensor], rows: int) -> Tensor:
    ordered, token = index
    n, d = d_ND.shape
    out = torch.zeros(rows, d, device=d_ND.device, dtype=torch.float32)
    _add_rows[(triton.cdiv(n, RUN),)](
        d_ND, ordered, token, out, n, d_ND.stride(0), D=d, BLOCK_D=triton.next_power_of_2(d), RUN=RUN, num_warps=2
    )
    return out


@triton.jit
def _capped(logits, row, column, inside, cap, V: tl.constexpr):
    """tanh(logits / cap); the exponential form loses no more than a rounding error of 1."""
    z = tl.load(logits + row * V + column, mask=inside, other=0.0).to(tl.float32)
    return 2.0 * tl.sigmoid(z * (2.0 / cap)) - 1.0


@triton.jit
def _softcap_nll(logits, targets, nll, lse, cap, N, V: tl.constexpr, BLOCK_V: tl.constexpr, ROWS: tl.constexpr):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row, column = rows[:, None], tl.arange(0, BLOCK_V)[None, :]
    inside = (row < N) & (column < V)
    capped = cap * _capped(logits, row, column, inside, cap, V)
    target = tl.load(targets + rows, mask=rows < N, other=0)[:, None]
    of_target = tl.sum(tl.where(column == target, capped, 0.0), axis=1)
    # Capped logits stay within the cap: exp(capped - cap) neither overflows nor vanishes.
    total = tl.sum(tl.where(column < V, tl.exp(capped - cap), 0.0), axis=1)
    value = tl.log(total) + cap
    tl.store(lse + rows, value, mask=rows < N)
    tl.store(nll + rows, value - of_target, mask=rows < N)


def softcap_nll(logits_NV: Tensor, targets_N: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    n, v = logits_NV.shape
    nll, lse = (torch.empty(n, device=logits_NV.device, dtype=torch.float32) for _ in range(2))
    block = triton.next_power_of_2(v)
    rows = max(1, 2048 // block)
    _softcap_nll[(triton.cdiv(n, rows),)](
        logits_NV, targets_N, nll, lse, cap, n, V=v, BLOCK_V=block, ROWS=rows, num_warps=8 if block > 4096 else 4
    )
    return nll, lse


@triton.jit
def _softcap_nll_backward(
    dnll, logits, lse, targets, cap, N, V: tl.constexpr, BLOCK_V: tl.constexpr, ROWS: tl.constexpr
):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row, column = rows[:, None], tl.arange(0, BLOCK_V)[None, :]
    inside = (row < N) & (column < V)
    t = _capped(logits, row, column, inside, cap, V)
    d = tl.exp(cap * t - tl.load(lse + rows, mask=rows < N, other=0.0)[:, None])
    d -= tl.where(column == tl.load(targets + rows, mask=rows < N, other=0)[:, None], 1.0, 0.0)
    d *= tl.load(dnll + rows, mask=rows < N, other=0.0)[:, None] * (1 - t * t)
    tl.store(logits + row * V + column, d.to(logits.dtype.element_ty), mask=inside)


def softcap_nll_backward(dnll_N: Tensor, logits_NV: Tensor, lse_N: Tensor, targets_N: Tensor, cap: float) -> Tensor:
    n, v = logits_NV.shape
    block = triton.next_power_of_2(v)
    rows = max(1, 2048 // block)
    _softcap_nll_backward[(triton.cdiv(n, rows),)](
        dnll_N, logits_NV, lse_N, targets_N, cap, n, V=v, BLOCK_V=block, ROWS=rows, num_warps=8 if block > 4096 else 4
    )
    return logits_NV
