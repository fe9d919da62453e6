"""Triton kernel of one decoding step of an attention layer: all between the q, k, v product and the output product.

The plain twin is `pygolf.model.decode.attend_cached`.
Shapes: B sequences, H query heads, K key/value heads, E head width, S allocated positions, n rotary pairs.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pygolf.model.attention import RMS_EPSILON

BLOCK = 64  # cached positions that are read at a time
ROWS = 16  # least rows of a tensor-core product; H / K of them are used


@triton.jit
def _normed_rotated(row, there, cos, sin, N: tl.constexpr, E: tl.constexpr, EPSILON: tl.constexpr):
    """RMS norm of E values at each pointer of `row` [R, 1], the first 2N dimensions rotated; fp32 [R, E]."""
    e = tl.arange(0, E)[None, :]
    partner = tl.where(e < N, e + N, tl.where(e < 2 * N, e - N, e))
    value = tl.load(row + e, mask=there, other=0.0).to(tl.float32)
    other = tl.load(row + partner, mask=there, other=0.0).to(tl.float32)
    c = tl.load(cos + e % N, mask=e < 2 * N, other=1.0)
    s = tl.load(sin + e % N, mask=e < 2 * N, other=0.0)
    scale = tl.rsqrt(tl.sum(value * value, 1) / E + EPSILON)[:, None]
    return (value * c + other * tl.where(e < N, s, -s)) * scale


@triton.jit
def _decode(
    qkv, gain, cos, sin, keys, values, out, position_1, positions, scale,
    H: tl.constexpr, K: tl.constexpr, E: tl.constexpr, N: tl.constexpr,
    EPSILON: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One sequence and one key head: online softmax over the cached positions that starts from the own one."""
    sequence, group = tl.program_id(0), tl.program_id(1)
    position = tl.load(position_1)
    cos += position * N
    sin += position * N
    e, g = tl.arange(0, E)[None, :], tl.arange(0, ROWS)[:, None]
    used = g < H // K
    head = group * (H // K) + g
    token = qkv + sequence * (H + 2 * K) * E
    query = _normed_rotated(token + head * E, used & (e < E), cos, sin, N, E, EPSILON)
    query = (query * tl.load(gain + head, mask=used, other=0.0) * scale).to(keys.dtype.element_ty)
    zero = tl.zeros((1, 1), tl.int32)
    key = _normed_rotated(token + (H + group) * E + zero, e < E, cos, sin, N, E, EPSILON).to(keys.dtype.element_ty)
    value = tl.load(token + (H + K + group) * E + e)
    cached = (sequence * K + group).to(tl.int64) * positions * E
    tl.store(keys + cached + position * E + e, key)
    tl.store(values + cached + position * E + e, value)

    own = value.to(tl.float32)
    largest = tl.sum(query.to(tl.float32) * key.to(tl.float32), 1)
    total = tl.full((ROWS,), 1.0, tl.float32)
    mixed = tl.zeros((ROWS, E), tl.float32) + own
    for begin in range(0, position, BLOCK):
        s = begin + tl.arange(0, BLOCK)
        block = cached + s[:, None] * E + e
        there = s < position
        block_keys = tl.load(keys + block, mask=there[:, None], other=0.0)
        block_values = tl.load(values + block, mask=there[:, None], other=0.0)
        logits = tl.where(there[None, :], tl.dot(query, block_keys.T), float("-inf"))
        higher = tl.maximum(largest, tl.max(logits, 1))
        weights = tl.exp(logits - higher[:, None])
        decay = tl.exp(largest - higher)
        total = total * decay + tl.sum(weights, 1)
        mixed = mixed * decay[:, None] + tl.dot(weights.to(block_values.dtype), block_values)
        largest = higher
    mixed /= total[:, None]
    direction = own / tl.maximum(tl.sqrt(tl.sum(own * own, 1)), 1e-12)[:, None]
    mixed -= tl.sum(mixed * direction, 1)[:, None] * direction
    tl.store(out + (sequence * H + head) * E + e, mixed.to(out.dtype.element_ty), mask=used & (e < E))


def attend_cached(
    qkv_BX: Tensor,
    gain_H: Tensor,
    cos_Sn: Tensor,
    sin_Sn: Tensor,
    keys_BKSE: Tensor,
    values_BKSE: Tensor,
    position_1: Tensor,
) -> Tensor:
    """Writes the key and value of one position into the cache and attends to all up to it: [B, H E].

    E is a power of two from 16 on. The position is read on the device.
    """
    batch, kv_heads, positions, width = keys_BKSE.shape
    heads, pairs = len(gain_H), cos_Sn.size(1)
    out = torch.empty(batch, heads * width, dtype=qkv_BX.dtype, device=qkv_BX.device)
    _decode[(batch, kv_heads)](
        qkv_BX, gain_H, cos_Sn, sin_Sn, keys_BKSE, values_BKSE, out, position_1, positions, width**-0.5,
        H=heads, K=kv_heads, E=width, N=pairs, EPSILON=RMS_EPSILON, ROWS=ROWS, BLOCK=BLOCK,
        num_warps=4, num_stages=3,
    )  # fmt: skip
    return out
