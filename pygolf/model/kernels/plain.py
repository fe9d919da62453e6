"""The fused steps of the model in plain torch; `fused` holds the same functions as Triton kernels.

Shapes: N tokens (B sequences of T), D width, H query heads, K key/value heads, E head width, X = (H + 2K) E,
M MLP width, V rows of a table. Reductions and gradients of vectors are fp32 or wider; rows keep their dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pygolf.model.attention import RMS_EPSILON


def wide(x: Tensor) -> Tensor:
    """x in fp32, or as it is if it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def product(d_NR: Tensor, x_NC: Tensor, out_RC: Tensor) -> None:
    """out = dᵀ x, the gradient of a weight, accumulated and kept in fp32 (or wider)."""
    torch.mm(d_NR.mT.to(out_RC.dtype), x_NC.to(out_RC.dtype), out=out_RC)


def mix_norm(
    x_ND: Tensor, x0_ND: Tensor, mix_2D: Tensor, scale: float, skip_ND: Tensor | None, skip_weight_D: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(m, scale · m r, r) with m = mix₀ (x + w skip) + mix₁ x0 and r = 1 / rms(m), fp32 [N]."""
    mixed = mix_2D[0] * _with_skip(x_ND, skip_ND, skip_weight_D) + mix_2D[1] * wide(x0_ND)
    rstd = (mixed.square().mean(1) + RMS_EPSILON).rsqrt()
    return mixed.to(x_ND.dtype), (mixed * rstd[:, None] * scale).to(x_ND.dtype), rstd


def _with_skip(x_ND: Tensor, skip_ND: Tensor | None, skip_weight_D: Tensor | None) -> Tensor:
    if skip_ND is None or skip_weight_D is None:
        return wide(x_ND)
    return wide(x_ND) + skip_weight_D * wide(skip_ND)


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
    """(dx + extra, dx0 + what is new, dskip, sums [*, 3, D]); may write over dmixed and dx0.

    `sums` add up to the gradients of mix₀, mix₁ and w. Adding up those of all blocks at once is faster.
    """
    source = _with_skip(x_ND, skip_ND, skip_weight_D)
    unit = (mix_2D[0] * source + mix_2D[1] * wide(x0_ND)) * rstd_N[:, None]
    d = wide(dmixed_ND) + _through_norm(scale * wide(dnormed_ND), unit, rstd_N)
    dx0 = mix_2D[1] * d if dx0_ND is None else mix_2D[1] * d + wide(dx0_ND)
    dsource = mix_2D[0] * d
    dskip = None if skip_weight_D is None else (skip_weight_D * dsource).to(x_ND.dtype)
    dweight = torch.zeros_like(d) if skip_ND is None else dsource * wide(skip_ND)
    sums = torch.stack([(d * source).sum(0), (d * wide(x0_ND)).sum(0), dweight.sum(0)])
    dx = dsource if extra_ND is None else dsource + wide(extra_ND)
    return dx.to(x_ND.dtype), dx0.to(x_ND.dtype), dskip, sums[None]


def _through_norm(dunit: Tensor, unit: Tensor, rstd: Tensor) -> Tensor:
    """Gradient of x for unit = x · rstd(x)."""
    return (dunit - unit * (dunit * unit).mean(-1, keepdim=True)) * rstd[..., None]


def norm(x_ND: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(scale · x r, r) with r = 1 / rms(x), fp32 [N]."""
    rstd = (wide(x_ND).square().mean(1) + RMS_EPSILON).rsqrt()
    return (wide(x_ND) * rstd[:, None] * scale).to(x_ND.dtype), rstd


def norm_backward(
    dnormed_ND: Tensor, normed_ND: Tensor, rstd_N: Tensor, scale: float, residual_ND: Tensor | None
) -> Tensor:
    """dx (+ residual, over which it may be written)."""
    dx = _through_norm(scale * wide(dnormed_ND), wide(normed_ND) / scale, rstd_N)
    return (dx if residual_ND is None else dx + wide(residual_ND)).to(dnormed_ND.dtype)


def split_heads(qkv_NX: Tensor, gain_H: Tensor, cos_Tn: Tensor, sin_Tn: Tensor, kv_heads: int) -> tuple[Tensor, Tensor]:
    """q [N, H, E] = gain · rotate(q / rms(q)) and k [N, K, E] = rotate(k / rms(k)) of the first H + K heads."""
    heads, rstd, gain = _query_key(qkv_NX, gain_H, kv_heads)
    turned = _rotate(heads * rstd[..., None], cos_Tn, sin_Tn) * gain
    q, k = turned.to(qkv_NX.dtype).split([len(gain_H), kv_heads], dim=1)
    return q.contiguous(), k.contiguous()


def _query_key(qkv_NX: Tensor, gain_H: Tensor, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(heads [N, H + K, E], 1 / rms [N, H + K], gains [H + K, 1]), fp32."""
    count = len(gain_H) + kv_heads
    heads = wide(qkv_NX).view(len(qkv_NX), count + kv_heads, -1)[:, :count]
    gain = torch.cat([gain_H, gain_H.new_ones(kv_heads)])
    return heads, (heads.square().mean(-1) + RMS_EPSILON).rsqrt(), gain[:, None]


def _rotate(x_NHE: Tensor, cos_Tn: Tensor, sin_Tn: Tensor) -> Tensor:
    """Turns the pairs (i, i + n) of the first 2n dimensions back by the angle of the token's position."""
    n, repeat = cos_Tn.size(1), len(x_NHE) // len(cos_Tn)
    cos, sin = (wide(table).repeat(repeat, 1)[:, None, :] for table in (cos_Tn, sin_Tn))
    first, second, rest = x_NHE.split([n, n, x_NHE.size(-1) - 2 * n], dim=-1)
    return torch.cat([first * cos + second * sin, second * cos - first * sin, rest], dim=-1)


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
    """(dqkv [N, X], whose last K heads are dv + dv_own, and every token's share of the gains' gradient [N, H])."""
    heads, rstd, gain = _query_key(qkv_NX, gain_H, dk_NKE.size(1))
    unit = heads * rstd[..., None]
    turned = _rotate(wide(torch.cat([dq_NHE, dk_NKE], dim=1)), cos_Tn, -sin_Tn)
    dgain = (turned * unit).sum(2)[:, : len(gain_H)]
    dheads = _through_norm(turned * gain, unit, rstd)
    dqkv = torch.cat([dheads, wide(dv_NKE) + wide(dv_own_NKE)], dim=1)
    return dqkv.flatten(1).to(qkv_NX.dtype), dgain


def remove_own_value(y_NHE: Tensor, qkv_NX: Tensor, kv_heads: int) -> Tensor:
    """XSA: y - (y·v̂) v̂, v̂ the direction of the token's own value, [N, H E]."""
    y, direction, _ = _own_direction(y_NHE, qkv_NX, kv_heads)
    return (y - (y * direction).sum(-1, keepdim=True) * direction).to(y_NHE.dtype).flatten(1)


def _own_direction(y_NHE: Tensor, qkv_NX: Tensor, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(y [N, K, H/K, E], v̂ [N, K, 1, E], 1 / |v| [N, K, 1, 1])."""
    n, _, e = y_NHE.shape
    v = wide(qkv_NX[:, -kv_heads * e :]).reshape(n, kv_heads, 1, e)
    inverse = 1 / v.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return wide(y_NHE).reshape(n, kv_heads, -1, e), v * inverse, inverse


def remove_own_value_backward(dz_NX: Tensor, y_NHE: Tensor, qkv_NX: Tensor, kv_heads: int) -> tuple[Tensor, Tensor]:
    """(dy [N, H, E], dv [N, K, E])."""
    y, direction, inverse = _own_direction(y_NHE, qkv_NX, kv_heads)
    dz = wide(dz_NX).view_as(y)
    a, b = (y * direction).sum(-1, keepdim=True), (dz * direction).sum(-1, keepdim=True)
    dv = -inverse * (a * dz + b * y - 2 * a * b * direction)
    return (dz - b * direction).to(dz_NX.dtype).view_as(y_NHE), dv.sum(2).to(dz_NX.dtype)


def mlp_up(x_ND: Tensor, up_MD: Tensor) -> tuple[Tensor, Tensor]:
    """(u, leaky_relu(u, 0.5)²) with u = x upᵀ, both [N, M]."""
    u_NM = x_ND @ up_MD.mT
    u = wide(u_NM)
    return u_NM, torch.where(u > 0, u, 0.5 * u).square().to(u_NM.dtype)


def mlp_activated(x_ND: Tensor, up_MD: Tensor) -> Tensor:
    """The activation alone [N, M], where no backward pass will follow."""
    return mlp_up(x_ND, up_MD)[1]


def mlp_down_backward(dx_ND: Tensor, down_DM: Tensor, u_NM: Tensor) -> Tensor:
    """du [N, M] for x = leaky_relu(u, 0.5)² downᵀ."""
    u = wide(u_NM)
    return (wide(dx_ND @ down_DM) * torch.where(u > 0, 2 * u, 0.5 * u)).to(u_NM.dtype)


def add_values(qkv_NX: Tensor, table_VX: Tensor, ids_N: Tensor) -> None:
    """Adds the value embedding of every token to its values, the last columns of qkv, in place."""
    qkv_NX[:, -table_VX.size(1) :] += table_VX[ids_N].to(qkv_NX.dtype)


def embed(ids_BT: Tensor, rows_BT: Tensor, table_VD: Tensor, bigram_RD: Tensor, gate_D: Tensor) -> Tensor:
    """x0 [N, D] = (1 - g) x + g x_previous, x = r (table[id] + bigram[row]) with unit rms; 0 before a sequence."""
    x = _embedded(ids_BT, rows_BT, table_VD, bigram_RD)[0]
    previous = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
    return torch.lerp(x, previous, torch.sigmoid(gate_D)).to(table_VD.dtype).flatten(0, 1)


def _embedded(ids_BT: Tensor, rows_BT: Tensor, table_VD: Tensor, bigram_RD: Tensor) -> tuple[Tensor, Tensor]:
    total = wide(table_VD)[ids_BT] + wide(bigram_RD)[rows_BT]
    rstd = (total.square().mean(-1) + RMS_EPSILON).rsqrt()
    return total * rstd[..., None], rstd


def embed_backward(
    dx0_ND: Tensor, ids_BT: Tensor, rows_BT: Tensor, table_VD: Tensor, bigram_RD: Tensor, gate_D: Tensor
) -> tuple[Tensor, Tensor]:
    """(gradient [N, D] of table[id] + bigram[row], dgate [D])."""
    x, rstd = _embedded(ids_BT, rows_BT, table_VD, bigram_RD)
    g = torch.sigmoid(gate_D)
    d = wide(dx0_ND).view_as(x)
    zero = torch.zeros_like(x[:, :1])
    previous, following = torch.cat([zero, x[:, :-1]], dim=1), torch.cat([d[:, 1:], zero], dim=1)
    dgate = (d * (previous - x)).sum((0, 1)) * g * (1 - g)
    dtotal = _through_norm((1 - g) * d + g * following, x, rstd)
    return dtotal.to(dx0_ND.dtype).flatten(0, 1), dgate


def sort_index(index_N: Tensor) -> tuple[Tensor, Tensor]:
    """(sorted index, token of each): what `add_rows` reads."""
    return torch.sort(index_N)


def add_rows(d_ND: Tensor, index: tuple[Tensor, Tensor], rows: int) -> Tensor:
    """[rows, D] fp32: the sum of d over the tokens of each index."""
    ordered, token = index
    d = wide(d_ND)
    return d.new_zeros(rows, d.size(1)).index_add_(0, ordered, d[token])


def softcap_nll(logits_NV: Tensor, targets_N: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """(nll [N], log-sum-exp [N]) of cap · tanh(logits / cap), fp32."""
    capped = cap * torch.tanh(wide(logits_NV) / cap)
    lse = capped.logsumexp(1)
    return lse - capped.gather(1, targets_N[:, None])[:, 0], lse


def softcap_nll_backward(dnll_N: Tensor, logits_NV: Tensor, lse_N: Tensor, targets_N: Tensor, cap: float) -> Tensor:
    """dlogits [N, V]; may be written over the logits."""
    t = torch.tanh(wide(logits_NV) / cap)
    d = (cap * t - lse_N[:, None]).exp()
    d[torch.arange(len(d)), targets_N] -= 1
    return (dnll_N[:, None] * d * (1 - t * t)).to(logits_NV.dtype)
