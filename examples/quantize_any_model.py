"""A transformer that is not pygolf's, trained for seconds, quantized into a byte budget, saved, loaded and compared.

usage: python examples/quantize_any_model.py [--bytes 90000] [--out model.golf]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pygolf
from pygolf.data.bundled import bundled_texts

WIDTH, HEADS, BLOCKS, LENGTH, VOCABULARY = 96, 4, 2, 64, 256


class Block(nn.Module):
    """Attention and a GELU layer, each behind a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(2, (HEADS, -1)).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class ByteModel(nn.Module):
    """A language model of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.bytes(ids) + self.positions(torch.arange(ids.size(1), device=ids.device))
        return self.head(self.norm(self.blocks(x)))


def loss(model: nn.Module, windows: Tensor) -> Tensor:
    """The losses of single bytes."""
    logits = model(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="none")


def batches(split: str, count: int, seed: int) -> list[Tensor]:
    text = torch.frombuffer(bytearray("".join(bundled_texts(split)).encode()), dtype=torch.uint8).long()
    starts = torch.randint(len(text) - LENGTH - 1, (count, 8), generator=torch.Generator().manual_seed(seed))
    return [text[start[:, None] + torch.arange(LENGTH + 1)] for start in starts]


def train(model: nn.Module, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for windows in batches("train", steps, seed=0):
        optimizer.zero_grad()
        loss(model, windows).mean().backward()
        optimizer.step()


@torch.no_grad()
def mean_loss(model: nn.Module) -> float:
    return float(torch.cat([loss(model, windows) for windows in batches("val", 16, seed=1)]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=90_000)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path("model.golf"))
    options = parser.parse_args()
    torch.manual_seed(0)
    model = ByteModel()
    train(model, options.steps)
    coded = pygolf.quantize(model, batches("train", 16, seed=2), loss=loss, budget_bytes=options.bytes)
    coded.save(options.out)
    print(coded.table())
    again = ByteModel()
    pygolf.load_quantized(options.out, again)
    size = 4 * sum(p.numel() for p in model.parameters())
    print(f"loss {mean_loss(model):.4f} at {size:,} bytes of weights")
    print(f"loss {mean_loss(again):.4f} from {options.out}, {len(coded.data):,} bytes")


if __name__ == "__main__":
    main()
