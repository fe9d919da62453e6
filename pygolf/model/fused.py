"""The model's function with fused kernels and a hand-written backward pass: what GPT.forward computes, and faster.

Value and bigram embeddings are projected once per row of their table instead of once per token, and logits stay in
the dtype of the activations. Shapes: N = B T tokens, D width, V vocabulary, R bigram rows.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pygolf.config import ModelConfig
from pygolf.model.fused_blocks import Blocks, Plan, Tokens, Weights
from pygolf.model.gpt import GPT, bigram_index
from pygolf.model.kernels import available, kernels


def supports(config: ModelConfig, device: torch.device) -> bool:
    """Whether the fused kernels run on the device, and on matrices of this shape: rows of whole 16 bytes."""
    widths = config.width, config.mlp_width, config.head_width * config.kv_heads
    return available(device) and all(width % 8 == 0 for width in widths)


def fused_nll(model: GPT, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Negative log-likelihood in nats of each target, fp32 [B, T]: model(ids, targets) to rounding."""
    hidden_ND = fused_hidden(model, ids_BT).flatten(0, 1)
    ops = kernels(ids_BT.device)
    nll_N: Tensor = _Head.apply(ops, model.config.logit_cap, targets_BT.flatten(), hidden_ND, model.tok_emb.weight)
    return nll_N.view(targets_BT.shape)


def fused_hidden(model: GPT, ids_BT: Tensor) -> Tensor:
    """Final normalised states [B, T, D]: model.hidden(ids) to rounding."""
    tokens = Tokens(ids_BT, kernels(ids_BT.device))
    x0_ND = embedded(model, tokens)
    hidden_ND: Tensor = Blocks.apply(Plan.of(model, tokens), x0_ND, *Weights.of(model).tensors())
    return hidden_ND.view(*ids_BT.shape, -1)


def embedded(model: GPT, tokens: Tokens) -> Tensor:
    """x0 [N, D]: what the blocks read."""
    ids_BT = tokens.ids_BT
    previous_BT = torch.cat([ids_BT.new_full((len(ids_BT), 1), -1), ids_BT[:, :-1]], dim=1)
    rows = Tokens(bigram_index(ids_BT, previous_BT, model.config.bigram_rows), tokens.ops)
    x0_ND: Tensor = _Embed.apply(
        tokens, rows, model.compute_dtype, model.tok_emb.weight, model.bigram.table(), model.smear.gate
    )
    return x0_ND


class _Embed(torch.autograd.Function):
    """Token and bigram embedding, norm and smear gate: [N, D] in `dtype` from tables [V, D] and [R, D]."""

    @staticmethod
    def forward(
        ctx: Any, tokens: Tokens, rows: Tokens, dtype: torch.dtype, table_VD: Tensor, bigram_RD: Tensor, gate_D: Tensor
    ) -> Tensor:
        ctx.tokens, ctx.rows = tokens, rows
        tables = table_VD.to(dtype), bigram_RD.to(dtype), gate_D
        ctx.save_for_backward(*tables)
        x0_ND: Tensor = tokens.ops.embed(tokens.ids_BT, rows.ids_BT, *tables)
        return x0_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dx0_ND: Tensor) -> tuple[Tensor | None, ...]:
        table_VD, bigram_RD, gate_D = ctx.saved_tensors
        ops: ModuleType = ctx.tokens.ops
        d_ND, dgate_D = ops.embed_backward(dx0_ND, ctx.tokens.ids_BT, ctx.rows.ids_BT, table_VD, bigram_RD, gate_D)
        dtable_VD = ops.add_rows(d_ND, ctx.tokens.order, len(table_VD))
        dbigram_RD = ops.add_rows(d_ND, ctx.rows.order, len(bigram_RD))
        return None, None, None, dtable_VD, dbigram_RD, dgate_D


class _Head(torch.autograd.Function):
    """Soft-capped cross-entropy of the tied head: nll fp32 [N] from states [N, D] and the token table [V, D]."""

    @staticmethod
    def forward(
        ctx: Any, ops: ModuleType, cap: float, targets_N: Tensor, hidden_ND: Tensor, table_VD: Tensor
    ) -> Tensor:
        table_VD = table_VD.to(hidden_ND.dtype)
        logits_NV = hidden_ND @ table_VD.mT
        nll_N, lse_N = ops.softcap_nll(logits_NV, targets_N, cap)
        ctx.ops, ctx.cap = ops, cap
        ctx.save_for_backward(targets_N, hidden_ND, table_VD, logits_NV, lse_N)
        return nll_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dnll_N: Tensor) -> tuple[Tensor | None, ...]:
        targets_N, hidden_ND, table_VD, logits_NV, lse_N = ctx.saved_tensors
        dlogits_NV = ctx.ops.softcap_nll_backward(dnll_N.contiguous(), logits_NV, lse_N, targets_N, ctx.cap)
        dtable_VD = torch.empty(table_VD.shape, dtype=lse_N.dtype, device=lse_N.device)
        ctx.ops.product(dlogits_NV, hidden_ND, dtable_VD)
        return None, None, None, dlogits_NV @ table_VD, dtable_VD
