"""The language model: a U-Net-shaped decoder with a smear gate, hashed bigrams and value embeddings.

Shapes: B sequences, T positions, D model width, V vocabulary, R bigram rows, L blocks.
Parameters are plain fp32 matrices and vectors of each block; activations use `compute_dtype`.
Source of the design: parameter-golf PRs 549, 1019, 1060, 1306 and 1351.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pygolf.config import ModelConfig
from pygolf.model.attention import CausalSelfAttention, LayerCache, Linear, pick_attention, rms_norm, rotary_tables
from pygolf.runtime import Runtime


class MLP(nn.Module):
    """W_down leaky_relu(W_up x, 0.5)²."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = Linear(config.width, config.mlp_width)
        self.down = Linear(config.mlp_width, config.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(F.leaky_relu(self.up(x_BTD), 0.5).square())


class Block(nn.Module):
    """x_in = m0 x + m1 x0; h = x_in + s_a Attn(c RMS(x_in)); out = h + s_m MLP(c RMS(h)); c = 1/sqrt(l + 1)."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.attn = CausalSelfAttention(config)
        self.mlp = MLP(config)
        self.resid_mix = nn.Parameter(torch.stack([torch.ones(config.width), torch.zeros(config.width)]))
        self.attn_scale = nn.Parameter(torch.ones(config.width))
        self.mlp_scale = nn.Parameter(torch.ones(config.width))
        self.norm_scale = (index + 1) ** -0.5

    def forward(
        self,
        x: Tensor,
        x0: Tensor,
        rotary: tuple[Tensor, Tensor],
        extra_value: Tensor | None = None,
        cache: LayerCache | None = None,
        start: int = 0,
    ) -> Tensor:
        mix = self.resid_mix.to(x.dtype)
        x = mix[0] * x + mix[1] * x0
        attended = self.attn(rms_norm(x) * self.norm_scale, rotary, extra_value, cache, start)
        x = x + self.attn_scale.to(x.dtype) * attended
        return x + self.mlp_scale.to(x.dtype) * self.mlp(rms_norm(x) * self.norm_scale)


class SmearGate(nn.Module):
    """x_t <- (1 - g) x_t + g x_(t-1), g = sigmoid(gate) per channel, x_(-1) = 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(width))

    def forward(self, x_BTD: Tensor, previous_BTD: Tensor) -> Tensor:
        g = torch.sigmoid(self.gate).to(x_BTD.dtype)
        return (1 - g) * x_BTD + g * previous_BTD


class ProjectedEmbedding(nn.Module):
    """scale · P table[index]: a narrow table, projected to the width that it is added to."""

    def __init__(self, rows: int, table_width: int, width: int, scale: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(rows, table_width)
        self.proj = Linear(table_width, width)
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, index_BT: Tensor, dtype: torch.dtype) -> Tensor:
        return self.proj(self.embed(index_BT).to(dtype)) * self.scale.to(dtype)

    def table(self) -> Tensor:
        """What every row of the table becomes, in the dtype of the weights [rows, width]."""
        return self.proj(self.embed.weight) * self.scale


def bigram_index(ids_BT: Tensor, previous_BT: Tensor, rows: int) -> Tensor:
    """Row of the bigram table: (36313·id XOR 27191·previous) mod (R-1); R-1 where there is no previous (-1)."""
    hashed = torch.bitwise_xor(36313 * ids_BT, 27191 * previous_BT) % (rows - 1)
    return torch.where(previous_BT < 0, rows - 1, hashed)


@dataclass
class Cache:
    """What cached decoding remembers: keys and values of every block and the last token's id and embedding."""

    layers: list[LayerCache]
    last_id_B1: Tensor
    last_x_B1D: Tensor
    length: int = 0


class GPT(nn.Module):
    """The model of RECIPE section 3 for any ModelConfig; `place` sets where and how it runs."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.tok_emb = nn.Embedding(config.vocab_size, config.width)
        self.bigram = ProjectedEmbedding(config.bigram_rows, config.bigram_width, config.width, 0.05)
        self.smear = SmearGate(config.width)
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.layers))
        self.skip_weights = nn.Parameter(torch.ones(config.skips, config.width))
        kv_width = config.kv_heads * config.head_width
        self.ve_shared = ProjectedEmbedding(config.vocab_size, config.value_embedding_width, kv_width, 0.1)
        self.ve_layer_scales = nn.ParameterList(torch.ones(1) for _ in config.value_embedding_layers)
        cos, sin = rotary_tables(config.sequence_length, config.rotary_dims, config.rotary_base)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Negative log-likelihood in nats of each target, fp32 [B, T]."""
        return self.nll(self.hidden(ids_BT), targets_BT)

    def nll(self, hidden_BTD: Tensor, targets_BT: Tensor) -> Tensor:
        logits = self.logits(hidden_BTD)
        return F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten(), reduction="none").view_as(targets_BT)

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Soft-capped logits, fp32 [B, T, V]; the head is the token embedding."""
        cap = self.config.logit_cap
        z = F.linear(hidden_BTD, self.tok_emb.weight.to(hidden_BTD.dtype)).float()
        return cap * torch.tanh(z / cap)

    def hidden(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        """Final normalised states [B, T, D]; with a cache, ids continue what the cache has seen."""
        start = 0 if cache is None else cache.length
        rotary = (self.cos[start : start + ids_BT.size(1)], self.sin[start : start + ids_BT.size(1)])
        x = self._embed(ids_BT, cache)
        x0, value = x, self.ve_shared(ids_BT, self.compute_dtype)
        skips: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            if i >= self.config.skips and skips:
                x = x + self.skip_weights[i - self.config.skips].to(x.dtype) * skips.pop()
            layer = None if cache is None else cache.layers[i]
            x = block(x, x0, rotary, self._extra_value(i, value), layer, start)
            if i < self.config.skips:
                skips.append(x)
        if cache is not None:
            cache.length += ids_BT.size(1)
        return rms_norm(x)

    def _embed(self, ids_BT: Tensor, cache: Cache | None) -> Tensor:
        if cache is None:
            cache = self.new_cache(ids_BT.size(0), 0)
        previous_BT = torch.cat([cache.last_id_B1, ids_BT[:, :-1]], dim=1)
        index = bigram_index(ids_BT, previous_BT, self.config.bigram_rows)
        x = rms_norm(self.tok_emb(ids_BT).to(self.compute_dtype) + self.bigram(index, self.compute_dtype))
        smeared = self.smear(x, torch.cat([cache.last_x_B1D, x[:, :-1]], dim=1))
        cache.last_id_B1, cache.last_x_B1D = ids_BT[:, -1:], x[:, -1:]
        return smeared

    def _extra_value(self, block: int, value: Tensor) -> Tensor | None:
        if block not in self.config.value_embedding_layers:
            return None
        scale = self.ve_layer_scales[self.config.value_embedding_layers.index(block)]
        return value * scale.to(value.dtype)

    def new_cache(self, batch: int, positions: int) -> Cache:
        """An empty cache for `batch` sequences of up to `positions` tokens, on the model's device."""
        c, device, dtype = self.config, self.cos.device, self.compute_dtype
        shape = (batch, c.kv_heads, positions, c.head_width)
        layers = [
            LayerCache(torch.empty(shape, device=device, dtype=dtype), torch.empty(shape, device=device, dtype=dtype))
            for _ in range(c.layers if positions else 0)
        ]
        no_id = torch.full((batch, 1), -1, device=device, dtype=torch.long)
        return Cache(layers, no_id, torch.zeros(batch, 1, c.width, device=device, dtype=dtype))


def place(model: GPT, runtime: Runtime) -> GPT:
    """Moves the model to where it runs and sets the precision and the attention kernel that it uses there."""
    model.compute_dtype = runtime.compute_dtype
    for module in model.modules():
        if isinstance(module, CausalSelfAttention):
            module.attend = pick_attention(runtime.attention, runtime.device)
    return model.to(runtime.device)


Role = Literal["matrix", "projection", "table", "vector"]


def parameter_role(name: str) -> Role:
    """What a parameter is, from its name: a block's matrix, a small projection, an embedding table, or a vector."""
    if not name.endswith(".weight"):
        return "vector"
    if name.startswith("blocks."):
        return "matrix"
    return "projection" if name.endswith("proj.weight") else "table"


def blocks_and_rest(model: GPT) -> tuple[list[list[nn.Parameter]], list[nn.Parameter]]:
    """The parameters of every block, and those outside of blocks."""
    blocks = [list(block.parameters()) for block in model.blocks]
    inside = {id(p) for block in blocks for p in block}
    return blocks, [p for p in model.parameters() if id(p) not in inside]


def block_scales(blocks: int, first: float) -> list[float]:
    """Discriminative factors of the blocks' learning rates: `first` at block 0, rising linearly to 1 at the last."""
    return [first + (1 - first) * i / max(1, blocks - 1) for i in range(blocks)]


def initialize(model: GPT, seed: int) -> None:
    """Weights of a fresh model, drawn on the CPU so that every device and rank starts from the same bits."""
    generator, threads = torch.Generator().manual_seed(seed), torch.get_num_threads()
    torch.set_num_threads(1)  # many threads take seconds longer over these small factorizations than one
    for name, parameter in sorted(model.named_parameters()):
        if parameter_role(name) != "vector":
            value = torch.empty(parameter.shape)
            _initial_matrix(name, value, generator)
            with torch.no_grad():
                parameter.copy_(value)
    torch.set_num_threads(threads)


def _initial_matrix(name: str, value: Tensor, generator: torch.Generator) -> None:
    if name == "tok_emb.weight":
        nn.init.normal_(value, std=0.005, generator=generator)
    elif name == "ve_shared.embed.weight":
        nn.init.normal_(value, std=0.01, generator=generator)
    elif name == "bigram.embed.weight" or name.endswith(("attn.out.weight", "mlp.down.weight")):
        nn.init.zeros_(value)
    else:
        nn.init.orthogonal_(value, generator=generator)
