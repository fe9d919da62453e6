"""The MLP's products with its activation in their epilogue, and products that give gradients of weights.

One persistent kernel does both directions, C [N, M] in tiles of BM by BN, with the tensor memory accelerator where
there is one. Two programs share a processor, so that one multiplies while the other writes its tile.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

BM, BN = 128, 128


def product(d_NR: Tensor, x_NC: Tensor, out_RC: Tensor) -> None:
    torch.mm(d_NR.mT, x_NC, out_dtype=out_RC.dtype, out=out_RC)


@triton.jit
def _finish(product, u, out, m, n, BACKWARD: tl.constexpr, KEEP: tl.constexpr):
    if BACKWARD:
        value = u.load([m, n]).to(tl.float32)
        out.store([m, n], (product * tl.where(value > 0, 2 * value, 0.5 * value)).to(out.dtype))
    else:
        rounded = product.to(out.dtype)
        if KEEP:
            u.store([m, n], rounded)
        value = rounded.to(tl.float32)
        value = tl.where(value > 0, value, 0.5 * value)
        out.store([m, n], (value * value).to(out.dtype))


@triton.jit
def _mlp(
    x, weight, u, out, tiles, tiles_m, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    PROGRAMS: tl.constexpr, BACKWARD: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Forward: weight is [M, D]; backward: [D, M]."""
    for tile in tl.range(tl.program_id(0), tiles, PROGRAMS, flatten=True):
        m, n = tile // tiles_m * BM, tile % tiles_m * BN
        total = tl.zeros([BM, BN], tl.float32)
        for k in range(0, D, BK):
            w = weight.load([k, n]) if BACKWARD else weight.load([n, k]).T
            total = tl.dot(x.load([m, k]), w, total)
        left, right = total.reshape([BM, 2, BN // 2]).permute([0, 2, 1]).split()
        _finish(left, u, out, m, n, BACKWARD, KEEP)
        _finish(right, u, out, m, n + BN // 2, BACKWARD, KEEP)


def _launch(x_ND: Tensor, weight: Tensor, u_NM: Tensor, out_NM: Tensor, backward: bool, keep: bool) -> None:
    (n, m), d = out_NM.shape, x_ND.size(1)
    tiles_m = triton.cdiv(m, BN)
    tiles = triton.cdiv(n, BM) * tiles_m
    programs = min(tiles, 2 * torch.cuda.get_device_properties(x_ND.device).multi_processor_count)
    # Measured on an H200. The backward pass reads a tile of u as well, so its steps are half as wide.
    bk, stages = (32, 5) if backward else (64, 3)
    weight_block = [bk, BN] if backward else [BN, bk]
    _mlp[(programs,)](
        _blocks(x_ND, [BM, bk]), _blocks(weight, weight_block), _blocks(u_NM, [BM, BN // 2]),
        _blocks(out_NM, [BM, BN // 2]), tiles, tiles_m,
        D=d, BM=BM, BN=BN, BK=bk, PROGRAMS=programs, BACKWARD=backward, KEEP=keep, num_warps=4,
        num_stages=stages,
    )  # fmt: skip


def _blocks(x: Tensor, block: list[int]) -> TensorDescriptor:
    return TensorDescriptor(x, list(x.shape), list(x.stride()), block)


def mlp_up(x_ND: Tensor, up_MD: Tensor) -> tuple[Tensor, Tensor]:
    u, a = x_ND.new_empty(len(x_ND), len(up_MD)), x_ND.new_empty(len(x_ND), len(up_MD))
    _launch(x_ND, up_MD, u, a, backward=False, keep=True)
    return u, a


def mlp_activated(x_ND: Tensor, up_MD: Tensor) -> Tensor:
    a = x_ND.new_empty(len(x_ND), len(up_MD))
    _launch(x_ND, up_MD, a, a, backward=False, keep=False)
    return a


def mlp_down_backward(dx_ND: Tensor, down_DM: Tensor, u_NM: Tensor) -> Tensor:
    du = torch.empty_like(u_NM)
    _launch(dx_ND, down_DM, u_NM, du, backward=True, keep=False)
    return du
