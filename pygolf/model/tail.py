"""Final states of the last positions of whole windows: what sliding-window scoring needs, and no more than that.

In the last block only the scored positions have queries, an MLP and an output; keys and values come from all.
Shapes: N = B T tokens, S scored positions, D width, H query heads, K key/value heads, E head width, X = (H + 2K) E.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from pygolf.model.attention import SDPA_ORDER
from pygolf.model.fused import embedded, supports
from pygolf.model.fused_blocks import Plan, Tokens, Weights, add_values, forward_block, through_blocks
from pygolf.model.gpt import GPT
from pygolf.model.kernels import kernels

TailStates = Callable[[Tensor, int], Tensor]
"""Ids [B, T] and S -> final normalised states [B, S, D] of the last S positions."""


def tail_states(model: GPT) -> TailStates:
    """The fastest form of `model.hidden(ids)[:, -S:]` where the model lies, for its weights as they are now."""
    if supports(model.config, model.cos.device):
        return FusedTail(model)
    return lambda ids_BT, scored: model.hidden(ids_BT)[:, -scored:]


class FusedTail:
    """`tail_states` from fused kernels. Holds the weights in the dtype of the activations; no gradients."""

    @torch.no_grad()
    def __init__(self, model: GPT) -> None:
        self._model, self._ops = model, kernels(model.cos.device)
        self._weights = Weights.of(model).with_matrices(model.compute_dtype)

    @torch.no_grad()
    def __call__(self, ids_BT: Tensor, scored: int) -> Tensor:
        plan, weights = Plan.of(self._model, Tokens(ids_BT.contiguous(), self._ops)), self._weights
        x0_ND = embedded(self._model, plan.tokens)

        def step(layer: int, x_ND: Tensor, skip_ND: Tensor | None) -> Tensor:
            if layer == len(plan.norm_scales) - 1:
                return _last_block(plan, weights, x_ND, x0_ND, skip_ND, scored)
            return forward_block(plan, weights, layer, x_ND, x0_ND, skip_ND)[0]

        hidden_MD: Tensor = self._ops.norm(through_blocks(plan, x0_ND, step), 1.0)[0]
        return hidden_MD.view(len(ids_BT), scored, -1)


def _last_block(
    plan: Plan, weights: Weights, x_ND: Tensor, x0_ND: Tensor, skip_ND: Tensor | None, scored: int
) -> Tensor:
    """The stream [B S, D] of the last S positions behind the last block."""
    ops, layer = plan.ops, len(plan.norm_scales) - 1
    scale, gain_H = plan.norm_scales[layer], weights.gain_LH[layer]
    skip_weight_D = None if skip_ND is None else weights.skip_SD[layer - plan.skips]
    stream_ND, normed_ND, _ = ops.mix_norm(x_ND, x0_ND, weights.mix_L2D[layer], scale, skip_ND, skip_weight_D)
    ids_BT, width = plan.tokens.ids_BT, weights.out_LDX.size(2)  # H E
    tail_BS = ids_BT[:, -scored:].contiguous()

    def tail(x: Tensor) -> Tensor:
        return x.unflatten(0, ids_BT.shape)[:, -scored:].flatten(0, 1).contiguous()

    kv_NX = add_values(plan, weights, layer, normed_ND @ weights.qkv_LXD[layer, width:].mT, ids_BT)
    qkv_MX = add_values(plan, weights, layer, tail(normed_ND) @ weights.qkv_LXD[layer].mT, tail_BS)
    _, k = ops.split_heads(kv_NX, gain_H[:0], plan.cos_Tn, plan.sin_Tn, plan.kv_heads)
    v = kv_NX.unflatten(1, (2 * plan.kv_heads, -1))[:, plan.kv_heads :]
    q, _ = ops.split_heads(qkv_MX, gain_H, plan.cos_Tn[-scored:], plan.sin_Tn[-scored:], plan.kv_heads)
    y_BSHE = attend_tail(q.unflatten(0, tail_BS.shape), *(plan.by_window(x) for x in (k, v)))
    z_MX = ops.remove_own_value(y_BSHE.flatten(0, 1), qkv_MX, plan.kv_heads)
    stream_MD = tail(stream_ND).addmm_(z_MX, weights.out_LDX[layer].mT)
    normed_MD, _ = ops.norm(stream_MD, scale)
    return stream_MD.addmm_(ops.mlp_activated(normed_MD, weights.up_LMD[layer]), weights.down_LDM[layer].mT)


def attend_tail(q_BSHE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor) -> Tensor:
    """Causal attention of the last S of T positions, scale 1/sqrt(E): [B, S, H, E].

    The query heads of a key head become further rows of queries, so that any kernel with a mask will do.
    """
    b, s, h, e = q_BSHE.shape
    groups, t = k_BKTE.size(1), k_BKTE.size(2)
    rows = q_BSHE.view(b, s, groups, -1, e).permute(0, 2, 3, 1, 4).reshape(b, groups, -1, e)
    place = torch.arange(t - s, t, device=k_BKTE.device).repeat(h // groups)
    mask = torch.arange(t, device=k_BKTE.device) <= place[:, None]
    with sdpa_kernel(SDPA_ORDER, set_priority=True):
        y = F.scaled_dot_product_attention(rows, k_BKTE, v_BKTE, attn_mask=mask)
    return y.view(b, groups, -1, s, e).permute(0, 3, 1, 2, 4).reshape(b, s, h, e)
