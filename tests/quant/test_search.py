"""The search ends just below the budget in few packings, and says what is wrong where it cannot."""

from __future__ import annotations

import math

import pytest

from pygolf.errors import BudgetError
from pygolf.quant.search import CLOSE_ENOUGH, PACKINGS, fit_step

WEIGHTS = 100_000


def packed(step: float, fixed: int = 3_000) -> bytes:
    """Size of Gaussian codes with something that does not shrink, and a little noise."""
    bits = 0.5 * math.log2(1 + 16 / step**2)
    return bytes(int(fixed + WEIGHTS * bits / 8 + math.sin(1e6 * step)))


def fitted(allowed: int, scale: float = 1.0, finest: float = 1e-4):  # type: ignore[no-untyped-def]
    return fit_step(
        packed,
        estimate=lambda s: WEIGHTS / 8 * 0.5 * math.log2(1 + 16 / (scale * s) ** 2),
        finest=finest,
        allowed=allowed,
        room="Think.",
    )


@pytest.mark.parametrize("allowed", [4_000, 20_000, 60_000, 120_000])
@pytest.mark.parametrize("scale", [1.0, 0.1, 30.0])
def test_it_ends_a_little_below_the_budget(allowed: int, scale: float) -> None:
    found = fitted(allowed, scale)
    assert (1 - CLOSE_ENOUGH) * allowed <= len(found.data) <= allowed
    assert found.data == packed(found.step)
    assert found.packings <= PACKINGS


def test_a_fair_estimate_needs_few_packings() -> None:
    assert fitted(60_000).packings <= 4


def test_a_budget_with_room_left_is_not_filled() -> None:
    found = fitted(10_000_000, finest=1e-3)
    assert found.step == pytest.approx(1e-3)
    assert len(found.data) < 200_000


@pytest.mark.parametrize("allowed", [2_000, 0, -500])
def test_a_hopeless_budget_says_by_how_many_bytes(allowed: int) -> None:
    with pytest.raises(BudgetError, match=r"[\d,]+ too many, even with .* Think\."):
        fitted(allowed)
