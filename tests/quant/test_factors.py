"""Factors are those of the inverse, rounded logarithms stay in a byte, and no second moment makes it fall over."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pygolf.errors import NumericError
from pygolf.quant.factors import COLUMN_DAMPING, MOST_LOG, ROW_FLOOR, factor_values, matrix_factors, rounded_logs
from pygolf.quant.moments import Moments


def moment(size: int, seed: int = 0) -> Tensor:
    x = torch.randn(4 * size, size, generator=torch.Generator().manual_seed(seed)) * torch.linspace(0.1, 3, size)
    return x.T @ x / len(x)


def factors_of(columns: Tensor, rows: Tensor, two_sided: bool = False, warnings: list[str] | None = None):  # type: ignore[no-untyped-def]
    told = [] if warnings is None else warnings
    return matrix_factors({"m": Moments(columns, rows)}, two_sided=two_sided, warn=told.append)["m"]


def test_u_is_the_upper_factor_of_the_damped_inverse() -> None:
    h = moment(12)
    u = factors_of(h, torch.ones(3)).columns.double()
    damped = h.double() + COLUMN_DAMPING * h.diagonal().mean() * torch.eye(12)
    torch.testing.assert_close(u.T @ u @ damped, torch.eye(12, dtype=torch.float64), rtol=0, atol=1e-5)
    assert torch.equal(u, u.triu())


def test_logarithms_are_within_half_a_grid_of_the_factors() -> None:
    g = moment(9, seed=1)
    one, both = factors_of(moment(12), g), factors_of(moment(12), g, two_sided=True)
    half = 2 ** (1 / 16) * 1.0001
    floored = g.diagonal().clamp_min(ROW_FLOOR * g.diagonal().mean())
    for f, rho in ((one, floored.rsqrt()), (both, both.rows.diagonal())):
        step = factor_values(f.row_logs[:, None] + rounded_logs(f.column_logs) + f.center)
        ratio = step / torch.outer(rho, f.columns.diagonal())
        assert ratio.max() <= half**2
        assert ratio.min() >= half**-2
    assert one.rows is None


def test_a_whole_model_is_factored_as_each_matrix_alone() -> None:
    shared = moment(8)
    moments = {
        "a": Moments(shared, torch.ones(2)),
        "b": Moments(shared, torch.ones(3)),
        "c": Moments(moment(8, seed=2), torch.ones(2)),
        "d": Moments(moment(5), torch.ones(2)),
    }
    found = matrix_factors(moments, two_sided=False, warn=pytest.fail)
    assert list(found) == list(moments)
    for name, m in moments.items():
        torch.testing.assert_close(found[name].columns, factors_of(m.columns, m.rows).columns)


@pytest.mark.parametrize("columns", [torch.zeros(6, 6), torch.ones(6, 6), 1e-30 * torch.eye(6), torch.eye(1)])
def test_poor_moments_still_give_finite_factors(columns: Tensor) -> None:
    f = factors_of(columns, torch.tensor([0.0, 1.0, 1e30]))
    assert f.columns.isfinite().all()
    assert (f.columns.diagonal() > 0).all()
    for logs in (f.row_logs, f.column_logs):
        assert int(rounded_logs(logs.double(), torch.ones(len(logs))).abs().max()) <= MOST_LOG + 1


def test_damping_rises_with_a_warning_that_names_the_matrix() -> None:
    warnings: list[str] = []
    indefinite = torch.eye(4)
    indefinite[0, 0] = -0.05  # as rounding errors of a large matrix can make it
    assert factors_of(indefinite, torch.ones(2), warnings=warnings).columns.isfinite().all()
    assert len(warnings) == 1
    assert "damping raised to 0.1" in warnings[0]


def test_nan_and_hopeless_moments_are_errors_that_name_the_matrix() -> None:
    nan = torch.eye(4)
    nan[1, 2] = torch.nan
    with pytest.raises(NumericError, match=r"^m: .* not finite"):
        factors_of(nan, torch.ones(2))
    with pytest.raises(NumericError, match=r"^m: .* not positive definite"):
        factors_of(-torch.eye(4), torch.ones(2))


def test_rows_without_gradient_keep_a_bounded_step() -> None:
    f = factors_of(moment(5), torch.tensor([1.0, 1.0, 1.0, 0.0, 1e-9]))
    assert (f.row_logs[3:] - f.row_logs[:3].max() <= 16 * 4).all()  # 1 / sqrt(ROW_FLOOR) and a little
