"""pygolf.quantize on a module that is not ours: what it predicts happens, and the file gives it back."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pygolf
from pygolf.errors import ArgumentError, BudgetError, FormatError
from pygolf.quant.rd import dequantize


class Small(nn.Module):
    """An embedding, two layers, a norm with its buffers, a head that is the embedding, and a layer that sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.one, self.two = nn.Embedding(40, 24), nn.Linear(24, 64), nn.Linear(64, 24, bias=False)
        self.norm = nn.BatchNorm1d(24)
        self.head = nn.Linear(24, 40)
        self.head.weight = self.table.weight
        self.asleep = nn.Linear(3, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.two(torch.tanh(self.one(self.table(ids))))))


def loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(module(batch[0]), batch[1], reduction="none")


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(0)
    ids = [torch.randint(0, 40, (400,), generator=g) for _ in range(4)]
    return [(x, (3 * x + torch.randint(0, 3, (400,), generator=g)) % 40) for x in ids]


@pytest.fixture
def module(batches: list[tuple[Tensor, Tensor]]) -> Small:
    """Trained to the ground, where the loss has no slope left."""
    torch.manual_seed(0)
    small = Small()
    optimizer = torch.optim.Adam(small.parameters(), lr=0.01)
    for step in range(120):
        optimizer.zero_grad()
        loss(small, batches[step % 4]).mean().backward()
        optimizer.step()
    return small.eval()


def mean_loss(module: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    with torch.no_grad():
        return float(torch.cat([loss(module, batch) for batch in batches]).mean())


def test_it_fits_the_budget_and_comes_back(module: Small, batches: list[tuple[Tensor, Tensor]], tmp_path: Path) -> None:
    before = copy.deepcopy(module.state_dict())
    coded = pygolf.quantize(module, batches, loss=loss, budget_bytes=3_500)
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    coded.save(tmp_path / "m.golf")
    assert 0.97 * 3_500 < (tmp_path / "m.golf").stat().st_size <= 3_500
    again = Small().eval()
    pygolf.load_quantized(tmp_path / "m.golf", again)
    assert again.head.weight is again.table.weight
    for name, values in dequantize(coded.matrices).items():
        torch.testing.assert_close(again.get_parameter(name).detach(), values, rtol=1e-6, atol=0)
    assert mean_loss(again, batches) < mean_loss(module, batches) + 0.2
    torch.testing.assert_close(again.norm.running_var, module.norm.running_var, rtol=1e-3, atol=1e-4)


def test_the_report_adds_up(module: Small, batches: list[tuple[Tensor, Tensor]], tmp_path: Path) -> None:
    coded = pygolf.quantize(module, batches, loss=loss, step=0.01)
    assert [x.name for x in coded.layers] == sorted(["table.weight", "one.weight", "two.weight"])
    weights = sum(x.shape[0] * x.shape[1] for x in coded.layers)
    assert sum(x.loss for x in coded.layers) == pytest.approx(weights * 0.01**2 / 24, rel=0.35)
    packed = sum(x.bits * x.shape[0] * x.shape[1] for x in coded.layers) / 8
    assert 0.5 * len(coded.data) < packed < len(coded.data)
    assert "asleep.weight" in coded.others
    assert "one.weight" in coded.table()


def test_a_mean_loss_counts_like_single_losses(module: Small, batches: list[tuple[Tensor, Tensor]]) -> None:
    single = pygolf.quantize(module, batches, loss=loss, step=0.01)
    mean = pygolf.quantize(module, batches, loss=lambda m, b: loss(m, b).mean(), step=0.01)
    for a, b in zip(single.layers, mean.layers, strict=True):
        assert a.bits == pytest.approx(b.bits, rel=0.1)
        assert a.loss == pytest.approx(b.loss, rel=0.2)


def test_more_bytes_than_a_model_needs_are_left(module: Small, batches: list[tuple[Tensor, Tensor]]) -> None:
    coded = pygolf.quantize(module, batches, loss=loss, budget_bytes=10_000_000)
    assert len(coded.data) < 4 * sum(p.numel() for p in module.parameters())
    assert sum(x.loss for x in coded.layers) < 1e-4


def test_what_cannot_be_done_says_why(module: Small, batches: list[tuple[Tensor, Tensor]], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="give one of them"):
        pygolf.quantize(module, batches, loss=loss)
    with pytest.raises(ArgumentError, match="took part in the loss of 0 examples"):
        pygolf.quantize(module, [], loss=loss, step=0.1)
    with pytest.raises(BudgetError, match="too many"):
        pygolf.quantize(module, batches, loss=loss, budget_bytes=300)
    pygolf.quantize(module, batches, loss=loss, step=0.1).save(tmp_path / "m.golf")
    with pytest.raises(FormatError, match="only in the"):
        pygolf.load_quantized(tmp_path / "m.golf", nn.Linear(3, 3))
