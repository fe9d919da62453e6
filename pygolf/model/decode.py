"""One decoding step of a whole batch from fused kernels, recorded once as a CUDA graph and replayed token after token.

It computes what GPT.hidden with a cache and GPT.logits compute; positions, cache and drawn ids never leave the device.
Shapes: B sequences, P prompt tokens, D width, V vocabulary, X = (H + 2K) E, S allocated positions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pygolf.model import fused
from pygolf.model.fused_blocks import Plan, Tokens, Weights, through_blocks
from pygolf.model.gpt import GPT, bigram_index
from pygolf.model.kernels import available, kernels

Draw = Callable[[Tensor], Tensor]
"""Logits [B, V] -> drawn ids [B, 1]."""


def supports(model: GPT) -> bool:
    """Whether `Decoder` runs where the model lies: CUDA with Triton, and heads whose width is a power of two."""
    width = model.config.head_width
    return fused.supports(model.config, model.cos.device) and width >= 16 and width & (width - 1) == 0


class Decoder:
    """B sequences of up to `positions` tokens. `prime` reads their beginning, every `next` draws one more id."""

    @torch.no_grad()
    def __init__(self, model: GPT, batch: int, positions: int, draw: Draw) -> None:
        self._model, self.positions, self._draw = model, positions, draw
        device, dtype = model.cos.device, model.compute_dtype
        self._ops = kernels(device)
        self._weights = Weights.of(model).with_matrices(dtype)
        self._table_VD, self._bigram_RD = model.tok_emb.weight.to(dtype), model.bigram.table().to(dtype)
        self._values = [scale * self._weights.value_VX for scale in self._weights.value_scale]
        self._layers = model.new_cache(batch, positions).layers
        # The last three ids, the newest of which is not in the cache yet; -1 is no id.
        self._context_B3 = torch.zeros(batch, 3, dtype=torch.int64, device=device)
        self._position_1 = torch.zeros(1, dtype=torch.int32, device=device)
        self._plan = Plan.of(model, Tokens(self._context_B3[:, 1:], self._ops))
        self._graph = self._record() if device.type == "cuda" else None

    def prime(self, ids_BP: Tensor) -> Tensor:
        """Forgets everything, reads ids from position 0 on and draws the next id [B, 1]."""
        cache = self._model.new_cache(len(ids_BP), 0)
        cache.layers = self._layers
        hidden_BPD = self._model.hidden(ids_BP, cache)
        drawn_B1 = self._draw(self._model.logits(hidden_BPD[:, -1:])[:, 0])
        known = torch.cat([torch.full_like(drawn_B1, -1), ids_BP, drawn_B1], dim=1)
        self._context_B3.copy_(known[:, -3:])
        self._position_1.fill_(ids_BP.size(1))
        return drawn_B1

    def next(self) -> Tensor:
        """Reads the last drawn id and draws the one behind it, [B, 1]; a view that the next call writes over."""
        if self._graph is not None:
            self._graph.replay()
        else:
            self._step()
        return self._context_B3[:, -1:]

    def _record(self) -> torch.cuda.CUDAGraph:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self._step()  # compiles kernels and fills the libraries' workspaces; `prime` forgets what it did
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        return graph

    def _step(self) -> None:
        ids_B2 = self._context_B3[:, 1:].contiguous()
        rows_B2 = bigram_index(ids_B2, self._context_B3[:, :-1], self._model.config.bigram_rows)
        gate = self._model.smear.gate
        x0_ND = self._ops.embed(ids_B2, rows_B2, self._table_VD, self._bigram_RD, gate)
        x0_BD = x0_ND.view(len(ids_B2), 2, -1)[:, 1].contiguous()
        ids_B = ids_B2[:, 1].contiguous()
        x_BD = through_blocks(
            self._plan, x0_BD, lambda layer, x_BD, skip_BD: self._block(layer, x_BD, x0_BD, skip_BD, ids_B)
        )
        drawn_B1 = self._draw(self._logits(x_BD))
        self._context_B3.copy_(torch.cat([self._context_B3[:, 1:], drawn_B1], dim=1))
        self._position_1.add_(1)

    def _block(self, layer: int, x_BD: Tensor, x0_BD: Tensor, skip_BD: Tensor | None, ids_B: Tensor) -> Tensor:
        ops, weights, plan = self._ops, self._weights, self._plan
        scale, mix = plan.norm_scales[layer], weights.mix_L2D[layer]
        skip_weight_D = None if skip_BD is None else weights.skip_SD[layer - plan.skips]
        stream_BD, normed_BD, _ = ops.mix_norm(x_BD, x0_BD, mix, scale, skip_BD, skip_weight_D)
        qkv_BX = normed_BD @ weights.qkv_LXD[layer].mT
        if layer in plan.value_layers:
            ops.add_values(qkv_BX, self._values[plan.value_layers.index(layer)], ids_B)
        stream_BD.addmm_(self._attend(layer, qkv_BX), weights.out_LDX[layer].mT)
        normed_BD, _ = ops.norm(stream_BD, scale)
        return stream_BD.addmm_(ops.mlp_activated(normed_BD, weights.up_LMD[layer]), weights.down_LDM[layer].mT)

    def _attend(self, layer: int, qkv_BX: Tensor) -> Tensor:
        attend = attend_cached
        if available(qkv_BX.device):
            from pygolf.model.kernels.decode import attend_cached as attend
        cache, model = self._layers[layer], self._model
        gain_H = self._weights.gain_LH[layer]
        return attend(qkv_BX, gain_H, model.cos, model.sin, cache.keys_BKSE, cache.values_BKSE, self._position_1)

    def _logits(self, x_BD: Tensor) -> Tensor:
        cap = self._model.config.logit_cap
        hidden_BD, _ = self._ops.norm(x_BD, 1.0)
        return cap * torch.tanh((hidden_BD @ self._table_VD.mT).float() / cap)


def attend_cached(
    qkv_BX: Tensor,
    gain_H: Tensor,
    cos_Sn: Tensor,
    sin_Sn: Tensor,
    keys_BKSE: Tensor,
    values_BKSE: Tensor,
    position_1: Tensor,
) -> Tensor:
    """Writes the key and value of one position into the cache and attends to all up to it: [B, H E]."""
    ops, kv_heads = kernels(qkv_BX.device), keys_BKSE.size(1)
    at = position_1.long()
    q_BHE, k_BKE = ops.split_heads(qkv_BX, gain_H, cos_Sn[at], sin_Sn[at], kv_heads)
    v_BKE = qkv_BX.unflatten(1, (len(gain_H) + 2 * kv_heads, -1))[:, -kv_heads:]
    keys_BKSE.index_copy_(2, at, k_BKE[:, :, None])
    values_BKSE.index_copy_(2, at, v_BKE[:, :, None])
    q_BKGE = q_BHE.unflatten(1, (kv_heads, -1))
    logits = (q_BKGE @ keys_BKSE.mT) * q_BKGE.size(-1) ** -0.5
    later = torch.arange(keys_BKSE.size(2), device=at.device) > at
    weights_BKGS = torch.softmax(logits.masked_fill(later, float("-inf")), dim=-1)
    y_BHE = (weights_BKGS @ values_BKSE.masked_fill(later[:, None], 0)).flatten(1, 2)
    result: Tensor = ops.remove_own_value(y_BHE, qkv_BX, kv_heads)
    return result
