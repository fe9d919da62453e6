"""Per-head steps around attention: QK-norm with rotary positions and gains, and XSA. A tile is ROWS heads by E.

Heads of a token lie side by side, q k v, so a head of any kind is a row of E numbers; shapes as in `plain`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pygolf.model.attention import RMS_EPSILON

ROWS = 16


@triton.jit
def _rotated(row, at, e, position, cos, sin, inside, turns, direction, n: tl.constexpr):
    """(x, x turned by `direction`): e < n pairs with e + n; the numbers behind 2n stay."""
    x = tl.load(row + at, mask=inside, other=0.0).to(tl.float32)
    turns = turns & (e < 2 * n)
    partner = tl.load(row + at + tl.where(e < n, n, -n), mask=turns, other=0.0).to(tl.float32)
    angle = position * n + e % n
    c = tl.load(cos + angle, mask=turns, other=1.0)
    s = tl.load(sin + angle, mask=turns, other=0.0) * tl.where(e < n, direction, -direction)
    return x, x * c + partner * s


@triton.jit
def _split_heads(
    qkv, gain, cos, sin, q, k, N, T,
    H: tl.constexpr, K: tl.constexpr, E: tl.constexpr, BLOCK_E: tl.constexpr, n: tl.constexpr,
    EPSILON: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    index = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    token, head = index // (H + K), index % (H + K)
    e = tl.arange(0, BLOCK_E)[None, :]
    inside = (token < N) & (e < E)
    x, turned = _rotated(qkv, (token * (H + 2 * K) + head) * E + e, e, token % T, cos, sin, inside, inside, 1.0, n)
    r = 1.0 / tl.sqrt(tl.sum(x * x, axis=1)[:, None] / E + EPSILON)
    is_query = head < H
    g = tl.load(gain + head, mask=is_query, other=1.0)
    value = (turned * r * g).to(q.dtype.element_ty)
    tl.store(q + (token * H + head) * E + e, value, mask=inside & is_query)
    tl.store(k + (token * K + head - H) * E + e, value, mask=inside & (head >= H))


def split_heads(qkv_NX: Tensor, gain_H: Tensor, cos_Tn: Tensor, sin_Tn: Tensor, kv_heads: int) -> tuple[Tensor, Tensor]:
    tokens, heads = len(qkv_NX), len(gain_H)
    e = qkv_NX.size(1) // (heads + 2 * kv_heads)
    q, k = qkv_NX.new_empty(tokens, heads, e), qkv_NX.new_empty(tokens, kv_heads, e)
    _split_heads[(triton.cdiv(tokens * (heads + kv_heads), ROWS),)](
        qkv_NX, gain_H, cos_Tn, sin_Tn, q, k, tokens, len(cos_Tn),
        H=heads, K=kv_heads, E=e, BLOCK_E=triton.next_power_of_2(e), n=cos_Tn.size(1), EPSILON=RMS_EPSILON, ROWS=ROWS,
    )  # fmt: skip
    return q, k


@triton.jit
def _split_heads_backward(
    dq, dk, dv, dv_own, qkv, gain, cos, sin, dqkv, dgain, N, T,
    H: tl.constexpr, K: tl.constexpr, E: tl.constexpr, BLOCK_E: tl.constexpr, n: tl.constexpr,
    EPSILON: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    index = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    token, head = index // (H + 2 * K), index % (H + 2 * K)
    e = tl.arange(0, BLOCK_E)[None, :]
    inside = (token < N) & (e < E)
    is_query, is_value = head < H, head >= H + K
    turns = inside & (head < H + K)
    x = tl.load(qkv + index * E + e, mask=turns, other=0.0).to(tl.float32)
    r = 1.0 / tl.sqrt(tl.sum(x * x, axis=1)[:, None] / E + EPSILON)
    # One pointer a row, so that a row is read once whatever head it belongs to.
    at_value = (token * K + head - H - K) * E
    source = tl.where(is_query, dq + (token * H + head) * E, dk + (token * K + head - H) * E)
    source = tl.where(is_value, dv + at_value, source)
    d, turned = _rotated(source, e, e, token % T, cos, sin, inside, turns, -1.0, n)
    unit = x * r
    dot = tl.sum(turned * unit, axis=1)[:, None]
    g = tl.load(gain + head, mask=is_query, other=1.0)
    own = tl.load(dv_own + at_value + e, mask=inside & is_value, other=0.0).to(tl.float32)
    d = tl.where(is_value, d + own, (turned - unit * (dot / E)) * (r * g))
    tl.store(dqkv + index * E + e, d.to(dqkv.dtype.element_ty), mask=inside)
    tl.store(dgain + token * H + head, dot, mask=is_query & (token < N))


def split_heads_backward(
    dq_NHE: Tensor,
    dk_NKE: Tensor,
    dv_NKE: Tensor,
    dv_own_NKE: Tensor,
    qkv_NX: Tensor,
    gain_H: Tensor,
    cos_Tn: Tensor,
    sin_Tn: Tensor,
) -> tuple[Tensor, Tensor]:
    tokens, heads, e = dq_NHE.shape
    kv_heads = dk_NKE.size(1)
    dqkv, dgain_NH = torch.empty_like(qkv_NX), gain_H.new_empty(tokens, heads)
    _split_heads_backward[(triton.cdiv(tokens * (heads + 2 * kv_heads), ROWS),)](
        dq_NHE.contiguous(), dk_NKE.contiguous(), dv_NKE.contiguous(), dv_own_NKE, qkv_NX, gain_H, cos_Tn, sin_Tn,
        dqkv, dgain_NH, tokens, len(cos_Tn),
        H=heads, K=kv_heads, E=e, BLOCK_E=triton.next_power_of_2(e), n=cos_Tn.size(1), EPSILON=RMS_EPSILON, ROWS=ROWS,
    )  # fmt: skip
    return dqkv, dgain_NH


@triton.jit
def _own_direction(qkv, token, head, e, inside, H: tl.constexpr, K: tl.constexpr, E: tl.constexpr):
    """(v / |v|, 1 / |v|) of each row's token and value head."""
    v = tl.load(qkv + (token * (H + 2 * K) + H + K + head) * E + e, mask=inside, other=0.0).to(tl.float32)
    inverse = 1.0 / tl.maximum(tl.sqrt(tl.sum(v * v, axis=1)[:, None]), 1e-12)
    return v * inverse, inverse


@triton.jit
def _remove_own_value(
    y, qkv, z, N, H: tl.constexpr, K: tl.constexpr, E: tl.constexpr, BLOCK_E: tl.constexpr, ROWS: tl.constexpr
):
    index = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    e = tl.arange(0, BLOCK_E)[None, :]
    inside = (index < N * K) & (e < E)
    direction, _ = _own_direction(qkv, index // K, index % K, e, inside, H, K, E)
    for group in tl.static_range(H // K):
        at = (index * (H // K) + group) * E + e
        value = tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
        value -= tl.sum(value * direction, axis=1)[:, None] * direction
        tl.store(z + at, value.to(z.dtype.element_ty), mask=inside)


def remove_own_value(y_NHE: Tensor, qkv_NX: Tensor, kv_heads: int) -> Tensor:
    tokens, heads, e = y_NHE.shape
    z = y_NHE.new_empty(tokens, heads * e)
    _remove_own_value[(triton.cdiv(tokens * kv_heads, ROWS),)](
        y_NHE.contiguous(), qkv_NX, z, tokens, H=heads, K=kv_heads, E=e, BLOCK_E=triton.next_power_of_2(e), ROWS=ROWS
    )
    return z


@triton.jit
def _remove_own_value_backward(
    dz, y, qkv, dy, dv, N,
    H: tl.constexpr, K: tl.constexpr, E: tl.constexpr, BLOCK_E: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    index = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    e = tl.arange(0, BLOCK_E)[None, :]
    inside = (index < N * K) & (e < E)
    direction, inverse = _own_direction(qkv, index // K, index % K, e, inside, H, K, E)
    total = tl.zeros([ROWS, BLOCK_E], tl.float32)
    for group in tl.static_range(H // K):
        at = (index * (H // K) + group) * E + e
        value = tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
        d = tl.load(dz + at, mask=inside, other=0.0).to(tl.float32)
        a, b = tl.sum(value * direction, axis=1)[:, None], tl.sum(d * direction, axis=1)[:, None]
        total += a * d + b * value - 2 * a * b * direction
        tl.store(dy + at, (d - b * direction).to(dy.dtype.element_ty), mask=inside)
    tl.store(dv + index * E + e, (-inverse * total).to(dv.dtype.element_ty), mask=inside)


def remove_own_value_backward(dz_NX: Tensor, y_NHE: Tensor, qkv_NX: Tensor, kv_heads: int) -> tuple[Tensor, Tensor]:
    tokens, heads, e = y_NHE.shape
    dy, dv = y_NHE.new_empty(y_NHE.shape), y_NHE.new_empty(tokens, kv_heads, e)
    _remove_own_value_backward[(triton.cdiv(tokens * kv_heads, ROWS),)](
        dz_NX, y_NHE.contiguous(), qkv_NX, dy, dv, tokens,
        H=heads, K=kv_heads, E=e, BLOCK_E=triton.next_power_of_2(e), ROWS=ROWS,
    )  # fmt: skip
    return dy, dv


@triton.jit
def _add_values(qkv, table, ids, N, X, KE: tl.constexpr, BLOCK: tl.constexpr, TOKENS: tl.constexpr):
    token = (tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS))[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (token < N) & (column < KE)
    at = qkv + token * X + X - KE + column
    value = tl.load(table + tl.load(ids + token, mask=token < N, other=0) * KE + column, mask=inside)
    value += tl.load(at, mask=inside).to(tl.float32)
    tl.store(at, value.to(qkv.dtype.element_ty), mask=inside)


def add_values(qkv_NX: Tensor, table_VX: Tensor, ids_N: Tensor) -> None:
    (n, x), ke = qkv_NX.shape, table_VX.size(1)
    block = triton.next_power_of_2(ke)
    tokens = max(1, 2048 // block)
    _add_values[(triton.cdiv(n, tokens),)](qkv_NX, table_VX, ids_N, n, x, KE=ke, BLOCK=block, TOKENS=tokens)
