"""Fitting a quantized model into a byte budget, measured on the real packed size.

Two knobs: larger steps for every row (`coarseness`), which costs least for many bytes, then zeroing the ±1 codes
with the least Hessian-weighted cost, which trims the rest exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from pygolf.errors import BudgetError
from pygolf.quant.gptq import QuantizedMatrix, QuantizedModel

PRUNED_AT_MOST = 0.02
"""Share of the bytes that zeroing may save before larger steps are the better way."""
CLOSE_ENOUGH = 0.001
"""The bisection ends this share below the budget."""
EVALUATIONS = 10
SOLVES = 6


@dataclass(frozen=True)
class Fit:
    """A quantized model that fits, and what it took."""

    model: QuantizedModel
    coarseness: float
    zeroed: int
    """Codes set to zero, on top of those that rounding gave."""


def fit_budget(
    solve: Callable[[float], QuantizedModel], packed_bytes: Callable[[QuantizedModel], int], allowed: int
) -> Fit:
    """Quantizes with `solve(coarseness)` until `packed_bytes` is at most `allowed`.

    Raises BudgetError, saying by how many bytes it is too large, if even large steps do not fit.
    """
    coarseness, size = 1.0, 0
    for _ in range(SOLVES):
        model = solve(coarseness)
        size = packed_bytes(model)
        if size <= allowed:
            return Fit(model, coarseness, 0)
        if size * (1 - PRUNED_AT_MOST) <= allowed:
            sparser = _zero_until(model, packed_bytes, allowed)
            if sparser is not None:
                return Fit(sparser, coarseness, _nonzero(model) - _nonzero(sparser))
        coarseness *= _coarsening(size, allowed, model.codes)
    excess = size - max(allowed, 0)
    raise BudgetError(
        f"the artifact is {size:,} bytes where {max(allowed, 0):,} are left for it: {excess:,} too many, "
        f"with steps {coarseness:.1f} times as large. Raise quant.budget_bytes, lower quant.matrix_bits or "
        f"quant.table_bits, or train a smaller model"
    )


def _coarsening(size: int, allowed: int, codes: int) -> float:
    """Step growth that saves the excess: each doubling saves a bit a code. Aims half a percent below the budget."""
    excess_bits = 8 * (size - 0.995 * allowed) / codes
    return float(2.0 ** min(max(excess_bits, 0.02), 2.0))


def _zero_until(
    model: QuantizedModel, packed_bytes: Callable[[QuantizedModel], int], allowed: int
) -> QuantizedModel | None:
    """Bisects how many ±1 codes to zero, cheapest first; None if all of them are not enough."""
    costs = torch.cat([_unit_costs(m).flatten() for m in model.matrices.values()])
    order = costs[costs.isfinite()].sort().values
    low, high = 0, len(order)
    best: QuantizedModel | None = None
    for _ in range(EVALUATIONS):
        middle = high if best is None else (low + high) // 2
        candidate = _zero_below(model, float(order[middle - 1]) if middle else -1.0)
        size = packed_bytes(candidate)
        if size <= allowed:
            best, high = candidate, middle
        elif best is None:
            return None
        else:
            low = middle
        if high - low <= 1 or (size <= allowed and size >= allowed * (1 - CLOSE_ENOUGH)):
            break
    return best


def _nonzero(model: QuantizedModel) -> int:
    return sum(int(m.codes.count_nonzero()) for m in model.matrices.values())


def _unit_costs(matrix: QuantizedMatrix) -> torch.Tensor:
    """scale² · H_jj for codes of ±1, infinity for all others; fp32 [R, C]."""
    cost = matrix.scales.float().square()[:, None] * matrix.importance[None, :]
    return torch.where(matrix.codes.abs() == 1, cost, torch.inf)


def _zero_below(model: QuantizedModel, largest: float) -> QuantizedModel:
    """The model with every ±1 code that costs at most `largest` set to 0."""
    matrices = {
        name: replace(m, codes=torch.where(_unit_costs(m) <= largest, 0, m.codes)) for name, m in model.matrices.items()
    }
    return replace(model, matrices=matrices)
