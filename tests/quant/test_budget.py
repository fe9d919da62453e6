"""Fitting: nothing is touched that fits, the cheapest codes go first, and a hopeless budget says by how much."""

from __future__ import annotations

import re

import pytest
import torch

from pygolf.errors import BudgetError
from pygolf.quant.budget import fit_budget
from pygolf.quant.gptq import QuantizedMatrix, QuantizedModel


def model(coarseness: float = 1.0) -> QuantizedModel:
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    scales = torch.full((64,), 0.25 * coarseness).half()
    codes = (weight / scales.float()[:, None]).round().to(torch.int8)
    importance = torch.linspace(0.1, 2.0, 128)
    return QuantizedModel({"w": QuantizedMatrix(codes, scales, 6, 0.0, importance)}, {})


def entropy_bytes(quantized: QuantizedModel) -> int:
    """A stand-in for packing that shrinks with the codes' entropy."""
    codes = torch.cat([m.codes.flatten() for m in quantized.matrices.values()])
    p = torch.bincount(codes.long() + 128).float() / len(codes)
    return int(-(p[p > 0].log2() * p[p > 0]).sum() * len(codes) / 8) + 100


def test_a_model_that_fits_is_left_alone() -> None:
    fit = fit_budget(model, entropy_bytes, entropy_bytes(model()))
    assert (fit.coarseness, fit.zeroed) == (1.0, 0)
    assert torch.equal(fit.model.matrices["w"].codes, model().matrices["w"].codes)


def test_a_small_excess_zeroes_the_cheapest_units() -> None:
    allowed = int(entropy_bytes(model()) * 0.99)
    fit = fit_budget(model, entropy_bytes, allowed)
    before, after = model().matrices["w"].codes, fit.model.matrices["w"].codes
    assert fit.coarseness == 1.0
    assert 0.995 * allowed <= entropy_bytes(fit.model) <= allowed
    zeroed = (after == 0) & (before != 0)
    assert int(zeroed.sum()) == fit.zeroed > 0
    assert (before[zeroed].abs() == 1).all()
    kept = (after.abs() == 1).nonzero()[:, 1]
    assert zeroed.nonzero()[:, 1].max() <= kept.min() + 1  # columns that matter less lose theirs first


def test_a_large_excess_takes_larger_steps() -> None:
    allowed = int(entropy_bytes(model()) * 0.7)
    fit = fit_budget(model, entropy_bytes, allowed)
    assert fit.coarseness > 1.5
    assert 0.97 * allowed <= entropy_bytes(fit.model) <= allowed


@pytest.mark.parametrize("allowed", [50, -7])
def test_a_hopeless_budget_says_by_how_many_bytes(allowed: int) -> None:
    with pytest.raises(BudgetError, match=r"bytes where [\d,]+ are left for it: ([\d,]+) too many") as caught:
        fit_budget(model, entropy_bytes, allowed)
    size, left, missing = (int(n.replace(",", "")) for n in re.findall(r"([\d,]*\d) ", str(caught.value))[:3])
    assert left == max(allowed, 0)
    assert size - left == missing
