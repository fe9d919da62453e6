"""Triton kernels of Muon; their plain twins are in `pygolf.train.muon`. Import it only where Triton is installed.

Shapes: N matrices [R, C] of a group.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
DEPTH = 64  # columns that a product takes at a time


@triton.jit
def _nesterov(gradient, velocity, update, clip, momentum, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    g = tl.load(gradient + at, mask=at < size) * tl.load(clip)
    v = momentum * tl.load(velocity + at, mask=at < size) + g
    tl.store(velocity + at, v, mask=at < size)
    tl.store(update + at, (g + momentum * v).to(update.dtype.element_ty), mask=at < size)


def nesterov(gradient_NRC: Tensor, velocity_NRC: Tensor, clip: Tensor, momentum: float, dtype: torch.dtype) -> Tensor:
    update_NRC = torch.empty_like(gradient_NRC, dtype=dtype)
    size = gradient_NRC.numel()
    _nesterov[(triton.cdiv(size, BLOCK),)](gradient_NRC, velocity_NRC, update_NRC, clip, momentum, size, BLOCK=BLOCK)
    return update_NRC


def fits(x_NRC: Tensor) -> bool:
    """Whether the matrices divide into the tiles of `square`."""
    return x_NRC.dtype == torch.bfloat16 and x_NRC.size(1) % _tile(x_NRC.size(1)) == 0 and x_NRC.size(2) % DEPTH == 0


def _tile(rows: int) -> int:
    """Side of a tile of the product: small matrices need small ones to fill the device."""
    return 128 if rows > 256 else 64


@triton.jit
def _square(
    x, y, out, R, C, row_stride, column_stride, a, b, diagonal,
    ADD: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    tile, matrix = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i = ((tl.sqrt(8.0 * tile + 1.0) - 1.0) * 0.5).to(tl.int32)
    i -= (i * (i + 1) // 2 > tile).to(tl.int32)  # the root may be off by one
    i += ((i + 1) * (i + 2) // 2 <= tile).to(tl.int32)
    j = tile - i * (i + 1) // 2
    row, column = i * TILE + tl.arange(0, TILE)[:, None], j * TILE + tl.arange(0, TILE)[:, None]
    depth = tl.arange(0, DEPTH)[None, :]
    x += matrix * R * C
    total = tl.zeros((TILE, TILE), tl.float32)
    for begin in range(0, C, DEPTH):
        left = tl.load(x + row * row_stride + (begin + depth) * column_stride)
        right = tl.load(x + column * row_stride + (begin + depth) * column_stride)
        total = tl.dot(left, right.T, total)
    here, mirrored = matrix * R * R + row * R + column.T, matrix * R * R + column * R + row.T
    if ADD:
        total = a * total + b * tl.load(y + here).to(tl.float32) + tl.where(row == column.T, diagonal, 0.0)
    value = total.to(out.dtype.element_ty)
    tl.store(out + here, value)
    tl.store(out + mirrored, value.T)


def square(x_NRC: Tensor, y_NRR: Tensor | None = None, a: float = 1.0, b: float = 0.0, diagonal: float = 0.0) -> Tensor:
    """Only tiles on and below the diagonal are computed, the others mirrored. x may be a transposed view."""
    n, r, c = x_NRC.shape
    out_NRR, tile = x_NRC.new_empty(n, r, r), _tile(r)
    tiles = r // tile
    _square[(tiles * (tiles + 1) // 2, n)](
        x_NRC, out_NRR if y_NRR is None else y_NRR, out_NRR, r, c, *x_NRC.stride()[1:], a, b, diagonal,
        ADD=y_NRR is not None, TILE=tile, DEPTH=DEPTH, num_warps=tile // 16, num_stages=3,
    )  # fmt: skip
    return out_NRR
