"""Forward and backward of all blocks, scheduled by hand around the fused kernels.

What is folded away, besides: a block's two output scales multiply the rows of its output matrices beforehand, so
that those products add straight onto the residual stream, in place. Gradients of weights leave the products in fp32.

Shapes: N = B T tokens, D width, H query heads, K key/value heads, E head width, X = (H + 2K) E, M MLP width,
V vocabulary, L blocks, S skips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pygolf.model.gpt import GPT


@dataclass(frozen=True)
class Tokens:
    """Ids [B, T], and their order by id, which sums over the tokens of an id need (made when first asked for)."""

    ids_BT: Tensor
    ops: ModuleType

    @cached_property
    def order(self) -> tuple[Tensor, Tensor]:
        order: tuple[Tensor, Tensor] = self.ops.sort_index(self.ids_BT.flatten())
        return order


@dataclass(frozen=True)
class Plan:
    """What the blocks need to know beside their tensors."""

    ops: ModuleType
    tokens: Tokens
    heads: int
    kv_heads: int
    skips: int
    value_layers: tuple[int, ...]
    norm_scales: list[float]
    cos_Tn: Tensor
    sin_Tn: Tensor
    attend: Callable[[Tensor, Tensor, Tensor], Tensor]
    keep: bool
    """Whether a backward pass will follow."""

    @staticmethod
    def of(model: GPT, tokens: Tokens) -> Plan:
        blocks: Any = model.blocks
        c, t = model.config, tokens.ids_BT.size(1)
        return Plan(
            ops=tokens.ops,
            tokens=tokens,
            heads=c.heads,
            kv_heads=c.kv_heads,
            skips=c.skips,
            value_layers=c.value_embedding_layers,
            norm_scales=[block.norm_scale for block in blocks],
            cos_Tn=model.cos[:t],
            sin_Tn=model.sin[:t],
            attend=blocks[0].attn.attend,
            keep=torch.is_grad_enabled(),
        )

    def by_window(self, x_NHE: Tensor) -> Tensor:
        """[N, H, E] -> [B, H, T, E], a view."""
        return x_NHE.unflatten(0, self.tokens.ids_BT.shape).transpose(1, 2)

    def skip_source(self, layer: int) -> int | None:
        """The block whose output joins the input of this one: last in, first out."""
        source = 2 * self.skips - 1 - layer
        return source if 0 <= source < self.skips else None


@dataclass
class Weights:
    """The blocks' parameters, stacked, or their gradients. Output matrices are multiplied by their scales."""

    qkv_LXD: Tensor
    out_LDX: Tensor
    up_LMD: Tensor
    down_LDM: Tensor
    gain_LH: Tensor
    mix_L2D: Tensor
    skip_SD: Tensor
    value_scale: Tensor
    """[value layers]"""
    value_VX: Tensor
    """Value embedding of every id [V, K E]."""

    @staticmethod
    def of(model: GPT) -> Weights:
        blocks: Any = model.blocks
        attention, mlps, count = [b.attn for b in blocks], [b.mlp for b in blocks], len(blocks)
        attn_scale_LD = torch.stack([b.attn_scale for b in blocks])
        mlp_scale_LD = torch.stack([b.mlp_scale for b in blocks])
        qkv = torch.cat([w for a in attention for w in (a.q.weight, a.k.weight, a.v.weight)])
        scales = list(model.ve_layer_scales)
        return Weights(
            qkv_LXD=qkv.unflatten(0, (count, -1)),
            out_LDX=attn_scale_LD[..., None] * torch.stack([a.out.weight for a in attention]),
            up_LMD=torch.stack([m.up.weight for m in mlps]),
            down_LDM=mlp_scale_LD[..., None] * torch.stack([m.down.weight for m in mlps]),
            gain_LH=torch.stack([a.q_gain for a in attention]),
            mix_L2D=torch.stack([b.resid_mix for b in blocks]),
            skip_SD=model.skip_weights,
            value_scale=torch.cat(scales) if scales else qkv.new_zeros(0),
            value_VX=model.ve_shared.table(),
        )

    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(vars(self).values())

    def with_matrices(self, dtype: torch.dtype) -> Weights:
        """The matrices in the dtype of the activations; vectors stay as they are."""
        cast = {name: t.to(dtype) for name, t in vars(self).items() if name in _MATRICES}
        return Weights(**(vars(self) | cast))


_MATRICES = ("qkv_LXD", "out_LDX", "up_LMD", "down_LDM")


@dataclass
class _Saved:
    """What a block leaves for its backward pass."""

    x_ND: Tensor
    normed1_ND: Tensor
    rstd1_N: Tensor
    qkv_NX: Tensor
    attention: tuple[tuple[Tensor, ...], Tensor]
    """q, k and v as leaves, and what attention made of them, with its graph: all [B, heads, T, E]."""
    z_NX: Tensor
    normed2_ND: Tensor
    rstd2_N: Tensor
    u_NM: Tensor
    a_NM: Tensor


class Blocks(torch.autograd.Function):
    """All blocks and the final norm: x0 [N, D] and `Weights.tensors` -> final states [N, D]."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, x0_ND: Tensor, *tensors: Tensor) -> Tensor:
        parameters = Weights(*tensors)
        weights = parameters.with_matrices(x0_ND.dtype)
        saved = list[_Saved]()

        def step(layer: int, x_ND: Tensor, skip_ND: Tensor | None) -> Tensor:
            x_ND, kept = forward_block(plan, weights, layer, x_ND, x0_ND, skip_ND)
            if plan.keep:
                saved.append(kept)
            return x_ND

        hidden_ND, rstd_N = plan.ops.norm(through_blocks(plan, x0_ND, step), 1.0)
        if plan.keep:
            ctx.state = plan, weights, saved, x0_ND, hidden_ND, rstd_N
            ctx.shapes = parameters
        return hidden_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dhidden_ND: Tensor) -> tuple[Tensor | None, ...]:
        plan, weights, saved, x0_ND, hidden_ND, rstd_N = ctx.state
        gradients = Weights(*(torch.zeros_like(t) for t in ctx.shapes.tensors()))
        del ctx.state, ctx.shapes
        walk = _Backward(plan, weights, gradients, saved, x0_ND)
        dx_ND = plan.ops.norm_backward(dhidden_ND, hidden_ND, rstd_N, 1.0, None)
        del dhidden_ND, hidden_ND
        for layer in reversed(range(len(plan.norm_scales))):
            dx_ND = walk.block(layer, dx_ND)
        walk.add_up()
        return None, dx_ND.add_(walk.dx0_ND), *gradients.tensors()


Step = Callable[[int, Tensor, Tensor | None], Tensor]
"""Layer, its input and the output that joins it (None without a skip) -> the layer's output, all [N, D]."""


def through_blocks(plan: Plan, x_ND: Tensor, step: Step) -> Tensor:
    """The output of the last block: every `step` gets the output of the one before and that of its skip source."""
    outputs = list[Tensor]()
    for layer in range(len(plan.norm_scales)):
        source = plan.skip_source(layer)
        x_ND = step(layer, x_ND, None if source is None else outputs[source])
        outputs.append(x_ND)
    return x_ND


def add_values(plan: Plan, weights: Weights, layer: int, values_NX: Tensor, ids_BT: Tensor) -> Tensor:
    """Adds the layer's value embedding of the ids, if it has one, to the last K E columns, in place."""
    if layer in plan.value_layers:
        scale = weights.value_scale[plan.value_layers.index(layer)]
        plan.ops.add_values(values_NX, scale * weights.value_VX, ids_BT.flatten())
    return values_NX


def forward_block(
    plan: Plan, weights: Weights, layer: int, x_ND: Tensor, x0_ND: Tensor, skip_ND: Tensor | None
) -> tuple[Tensor, _Saved]:
    ops, scale = plan.ops, plan.norm_scales[layer]
    skip_weight_D = None if skip_ND is None else weights.skip_SD[layer - plan.skips]
    stream_ND, normed1_ND, rstd1_N = ops.mix_norm(x_ND, x0_ND, weights.mix_L2D[layer], scale, skip_ND, skip_weight_D)
    qkv_NX = normed1_ND @ weights.qkv_LXD[layer].mT
    add_values(plan, weights, layer, qkv_NX, plan.tokens.ids_BT)
    q, k = ops.split_heads(qkv_NX, weights.gain_LH[layer], plan.cos_Tn, plan.sin_Tn, plan.kv_heads)
    v = qkv_NX.unflatten(1, (plan.heads + 2 * plan.kv_heads, -1))[:, -plan.kv_heads :]
    qkv = tuple(plan.by_window(x).detach().requires_grad_(plan.keep) for x in (q, k, v))
    with torch.set_grad_enabled(plan.keep):
        y = plan.attend(*qkv)
    z_NX = ops.remove_own_value(y.detach().transpose(1, 2).flatten(0, 1), qkv_NX, plan.kv_heads)
    stream_ND.addmm_(z_NX, weights.out_LDX[layer].mT)
    normed2_ND, rstd2_N = ops.norm(stream_ND, scale)
    if plan.keep:
        u_NM, a_NM = ops.mlp_up(normed2_ND, weights.up_LMD[layer])
    else:
        u_NM = a_NM = ops.mlp_activated(normed2_ND, weights.up_LMD[layer])
    stream_ND.addmm_(a_NM, weights.down_LDM[layer].mT)
    saved = _Saved(x_ND, normed1_ND, rstd1_N, qkv_NX, (qkv, y), z_NX, normed2_ND, rstd2_N, u_NM, a_NM)
    return stream_ND, saved


class _Backward:
    """The walk back through the blocks; what it has used it lets go."""

    def __init__(self, plan: Plan, weights: Weights, gradients: Weights, saved: list[_Saved], x0_ND: Tensor) -> None:
        self.plan, self.weights, self.gradients, self.saved, self.x0_ND = plan, weights, gradients, saved, x0_ND
        self.dx0_ND: Tensor | None = None
        self.dskips: dict[int, Tensor] = {}
        self.mix_sums: list[Tensor] = []
        self.gain_sums: list[Tensor] = []

    def block(self, layer: int, dx_ND: Tensor) -> Tensor:
        """Gradient of the block's input from that of its output."""
        source = self.plan.skip_source(layer)
        skip_ND = None if source is None else self.saved[source + 1].x_ND
        saved = self.saved.pop()
        dstream_ND = self._mlp(layer, saved, dx_ND)
        dnormed_ND = self._attention(layer, saved, dstream_ND)
        dx_ND, self.dx0_ND, dskip_ND, sums_P3D = self.plan.ops.mix_norm_backward(
            dstream_ND,
            dnormed_ND,
            saved.rstd1_N,
            saved.x_ND,
            self.x0_ND,
            self.weights.mix_L2D[layer],
            self.plan.norm_scales[layer],
            skip_ND,
            None if skip_ND is None else self.weights.skip_SD[layer - self.plan.skips],
            self.dx0_ND,
            self.dskips.pop(layer - 1, None),
        )
        self.mix_sums.append(sums_P3D)
        if source is not None:
            self.dskips[source] = dskip_ND
        if source == layer - 1:  # the innermost skip joins its own block's output
            dx_ND += self.dskips.pop(source)
        return dx_ND

    def add_up(self) -> None:
        """The gradients that are sums over tokens, of all blocks at once."""
        skips = self.plan.skips
        mix_L3D = torch.stack(self.mix_sums[::-1]).sum(1)
        self.gradients.mix_L2D.copy_(mix_L3D[:, :2])
        self.gradients.skip_SD.copy_(mix_L3D[skips : 2 * skips, 2])
        self.gradients.gain_LH.copy_(torch.stack(self.gain_sums[::-1]).sum(1))

    def _mlp(self, layer: int, saved: _Saved, dx_ND: Tensor) -> Tensor:
        ops, weights, gradients = self.plan.ops, self.weights, self.gradients
        ops.product(dx_ND, saved.a_NM, gradients.down_LDM[layer])
        du_NM = ops.mlp_down_backward(dx_ND, weights.down_LDM[layer], saved.u_NM)
        ops.product(du_NM, saved.normed2_ND, gradients.up_LMD[layer])
        dnormed_ND = du_NM @ weights.up_LMD[layer]
        dstream_ND: Tensor = ops.norm_backward(
            dnormed_ND, saved.normed2_ND, saved.rstd2_N, self.plan.norm_scales[layer], dx_ND
        )
        return dstream_ND

    def _attention(self, layer: int, saved: _Saved, dstream_ND: Tensor) -> Tensor:
        plan, ops, weights, gradients = self.plan, self.plan.ops, self.weights, self.gradients
        ops.product(dstream_ND, saved.z_NX, gradients.out_LDX[layer])
        leaves, y = saved.attention
        dy_NHE, dv_own_NKE = ops.remove_own_value_backward(
            dstream_ND @ weights.out_LDX[layer], y.detach().transpose(1, 2).flatten(0, 1), saved.qkv_NX, plan.kv_heads
        )
        dqkv = torch.autograd.grad(y, leaves, plan.by_window(dy_NHE))
        dqkv_NX, dgain_NH = ops.split_heads_backward(
            *(d.transpose(1, 2).flatten(0, 1) for d in dqkv),
            dv_own_NKE,
            saved.qkv_NX,
            weights.gain_LH[layer],
            plan.cos_Tn,
            plan.sin_Tn,
        )
        self.gain_sums.append(dgain_NH)
        if layer in plan.value_layers:
            self._value_embedding(plan.value_layers.index(layer), dqkv_NX)
        ops.product(dqkv_NX, saved.normed1_ND, gradients.qkv_LXD[layer])
        return dqkv_NX @ weights.qkv_LXD[layer]

    def _value_embedding(self, i: int, dqkv_NX: Tensor) -> None:
        value_VX, scale = self.weights.value_VX, self.weights.value_scale[i]
        dv_NX = dqkv_NX[:, -value_VX.size(1) :]
        rows_VX = self.plan.ops.add_rows(dv_NX, self.plan.tokens.order, len(value_VX))
        self.gradients.value_VX.add_(scale * rows_VX)
        self.gradients.value_scale[i] = (rows_VX * value_VX).sum()
