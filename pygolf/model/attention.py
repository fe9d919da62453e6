"""Causal grouped-query attention with partial rotary positions, query gains and exclusive self-attention (XSA).

Shapes: B sequences, T positions, S cached positions, H query heads, K key/value heads, E head width, D model width.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pygolf.config import ModelConfig
from pygolf.errors import ConfigError

RMS_EPSILON = torch.finfo(torch.float32).eps

# Tried in this order on CUDA. cuDNN is the fastest that torch ships for whole windows, but plans anew for every
# length, so decoding with a cache goes without it.
SDPA_ORDER = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def rms_norm(x: Tensor) -> Tensor:
    """x / sqrt(mean(x²)) over the last dimension, without a weight."""
    return F.rms_norm(x, (x.size(-1),), eps=RMS_EPSILON)


class Linear(nn.Linear):
    """y = x Wᵀ without bias, W kept in fp32 and cast to the dtype of x."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


@dataclass
class LayerCache:
    """Keys and values of one attention layer, allocated once: [B, K, S, E]."""

    keys_BKSE: Tensor
    values_BKSE: Tensor


def rotary_tables(positions: int, dims: int, base: float) -> tuple[Tensor, Tensor]:
    """cos and sin [positions, dims/2] of position · base^(-2i/dims); one base for every length of input."""
    frequency = base ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] * frequency[None, :]
    return angle.cos().float(), angle.sin().float()


def apply_rotary(x_BTHE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the pairs (i, i + n) of the first 2n dimensions; the rest carries no position."""
    n = cos.size(-1)
    cos, sin = cos[:, None, :].to(x_BTHE.dtype), sin[:, None, :].to(x_BTHE.dtype)
    first, second, rest = x_BTHE.split([n, n, x_BTHE.size(-1) - 2 * n], dim=-1)
    return torch.cat([first * cos + second * sin, second * cos - first * sin, rest], dim=-1)


def remove_own_value(y_BTHE: Tensor, v_BTKE: Tensor) -> Tensor:
    """XSA: y - (y·v̂) v̂ with v̂ the direction of the token's own value, per query head."""
    b, t, h, e = y_BTHE.shape
    direction = F.normalize(v_BTKE, dim=-1)[:, :, :, None, :]
    y = y_BTHE.reshape(b, t, v_BTKE.size(2), -1, e)
    return (y - (y * direction).sum(-1, keepdim=True) * direction).reshape(b, t, h, e)


def attend(q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor) -> Tensor:
    """Softmax attention of the last T of S positions, causal, scale 1/sqrt(E); query heads share keys in groups."""
    t, s = q_BHTE.size(2), k_BKSE.size(2)
    mask = None
    if t not in (1, s):
        row = torch.arange(s - t, s, device=q_BHTE.device)
        mask = torch.arange(s, device=q_BHTE.device)[None, :] <= row[:, None]
    with sdpa_kernel(SDPA_ORDER if t == s else SDPA_ORDER[1:], set_priority=True):
        return F.scaled_dot_product_attention(
            q_BHTE, k_BKSE, v_BKSE, attn_mask=mask, is_causal=t == s and t > 1, enable_gqa=True
        )


def attend_flash(q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor) -> Tensor:
    """`attend` by flash-attn-4 for whole windows on CUDA; it compiles its own kernels, so torch.compile stays out."""
    if q_BHTE.size(2) != k_BKSE.size(2) or q_BHTE.size(2) == 1:
        return attend(q_BHTE, k_BKSE, v_BKSE)
    output: Tensor = torch.compiler.disable(_flash_window)(q_BHTE, k_BKSE, v_BKSE)
    return output


def _flash_window(q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor) -> Tensor:
    from flash_attn.cute import flash_attn_func

    result = flash_attn_func(*(x.transpose(1, 2) for x in (q_BHTE, k_BKTE, v_BKTE)), causal=True)
    output_BTHE: Tensor = result[0] if isinstance(result, tuple) else result  # some versions return (output, lse)
    return output_BTHE.transpose(1, 2)


def attend_cudnn(q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor) -> Tensor:
    """`attend` by cuDNN or not at all for whole windows; torch's error says what it lacks."""
    if q_BHTE.size(2) != k_BKSE.size(2) or q_BHTE.size(2) == 1:
        return attend(q_BHTE, k_BKSE, v_BKSE)
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return F.scaled_dot_product_attention(q_BHTE, k_BKSE, v_BKSE, is_causal=True, enable_gqa=True)


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
ATTENTION: dict[str, Attend] = {"sdpa": attend, "cudnn": attend_cudnn, "flash": attend_flash}


def _why_no_flash(device: torch.device) -> str | None:
    """What flash-attn-4 lacks to run on the device, if anything; flash-attn-2 has the same package name, no `cute`."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (9, 0):
        return "it needs a GPU from Hopper on"
    try:
        importlib.import_module("flash_attn.cute")
    except ImportError as lacking:
        return f"{lacking}; pip install pygolf[flash] installs it"
    return None


def pick_attention(name: str, device: torch.device) -> Attend:
    """The attention kernel of that name; `auto` is flash-attn-4 where it is installed and runs, else sdpa.

    Raises ConfigError for one that cannot run on the device.
    """
    lacking = _why_no_flash(device) if name in ("auto", "flash") else None
    if name == "auto":
        return attend if lacking else attend_flash
    if name == "cudnn" and device.type != "cuda":
        lacking = "it needs CUDA"
    if lacking:
        raise ConfigError(f"runtime.attention is {name}, which cannot run on {device}: {lacking}. Use auto")
    return ATTENTION[name]


class CausalSelfAttention(nn.Module):
    """One attention layer. Sources: GQA arXiv 2305.13245, RoPE arXiv 2104.09864, QK-norm arXiv 2010.04245,
    XSA parameter-golf PR 549 and its successors."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = config.heads, config.kv_heads, config.head_width
        self.q = Linear(config.width, config.heads * config.head_width)
        self.k = Linear(config.width, config.kv_heads * config.head_width)
        self.v = Linear(config.width, config.kv_heads * config.head_width)
        self.out = Linear(config.heads * config.head_width, config.width)
        self.q_gain = nn.Parameter(torch.full((config.heads,), config.q_gain))
        self.attend: Attend = attend

    def forward(
        self,
        x_BTD: Tensor,
        rotary: tuple[Tensor, Tensor],
        extra_value: Tensor | None = None,
        cache: LayerCache | None = None,
        start: int = 0,
    ) -> Tensor:
        """x [B, T, D] at positions start..start+T; extra_value [B, T, K*E] is added to the values."""
        b, t, _ = x_BTD.shape
        v = self.v(x_BTD)
        if extra_value is not None:
            v = v + extra_value
        v = v.view(b, t, self.kv_heads, self.head_width)
        q = rms_norm(self.q(x_BTD).view(b, t, self.heads, self.head_width))
        k = rms_norm(self.k(x_BTD).view(b, t, self.kv_heads, self.head_width))
        q = apply_rotary(q, *rotary) * self.q_gain.to(q.dtype)[:, None]
        k = apply_rotary(k, *rotary)
        q, keys, values = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if cache is not None:
            keys, values = extend(cache, keys, values, start)
        y = self.attend(q, keys, values).transpose(1, 2)
        y = remove_own_value(y, v)
        return self.out(y.reshape(b, t, self.heads * self.head_width))


def extend(cache: LayerCache, keys: Tensor, values: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Writes the new keys and values behind position start and returns all up to the newest."""
    end = start + keys.size(2)
    cache.keys_BKSE[:, :, start:end] = keys
    cache.values_BKSE[:, :, start:end] = values
    return cache.keys_BKSE[:, :, :end], cache.values_BKSE[:, :, :end]
