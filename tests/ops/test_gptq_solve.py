"""The GPTQ operator against the paper's double loop in float64, and its contract with torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pygolf import ops
from pygolf.errors import ArgumentError, NumericError

MAX_CODE = 31
DAMPING = 0.005


def problem(rows: int, columns: int, *, candidates: int = 1, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Weight [R, C], Hessian [C, C] of correlated inputs of different size, clips [K, R] from 100 to 70 % of |w|."""
    random = torch.Generator().manual_seed(seed)
    weight = 0.02 * torch.randn(rows, columns, generator=random)
    mix = torch.randn(columns, columns, generator=random) / columns**0.5 + 0.3
    inputs = torch.randn(3 * columns, columns, generator=random) @ mix
    inputs *= torch.randn(columns, generator=random).exp()
    fractions = torch.linspace(1.0, 0.7, candidates)
    return weight, inputs.T @ inputs / len(inputs), fractions[:, None] * weight.abs().amax(1)


def textbook(weight: Tensor, hessian: Tensor, clip: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [R, C] of Frantar et al.'s loop in float64, and each row's least distance [R] from a rounding tie."""
    steps = (clip / MAX_CODE).half().double()
    order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
    w = weight.double()[:, order]
    damped = hessian.double()[order][:, order] + DAMPING * hessian.diagonal().double().mean() * torch.eye(len(order))
    upper = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    codes = torch.empty(w.shape, dtype=torch.int8)
    margin = torch.full((len(w),), 0.5, dtype=torch.float64)
    for j in range(w.shape[1]):
        scaled = w[:, j] / steps
        code = scaled.round().clamp(-MAX_CODE, MAX_CODE)
        inside = scaled.abs() < MAX_CODE
        margin = torch.where(inside, torch.minimum(margin, 0.5 - (scaled - scaled.round()).abs()), margin)
        w[:, j:] -= torch.outer((w[:, j] - code * steps) / upper[j, j], upper[j, j:])
        codes[:, order[j]] = code.to(torch.int8)
    return codes, margin


def error_of(weight: Tensor, hessian: Tensor, values: Tensor) -> Tensor:
    residual = (weight - values).double()
    return ((residual @ hessian.double()) * residual).sum(1)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 30), (40, 1), (64, 200), (17, 257)])
def test_codes_equal_the_textbook_except_at_ties(rows: int, columns: int) -> None:
    weight, hessian, clips = problem(rows, columns)
    solution = ops.gptq_solve(weight, hessian, clips)
    expected, margin = textbook(weight, hessian, clips[0])
    clear = margin > 1e-5
    assert clear.float().mean() >= 0.9
    assert torch.equal(solution.codes[clear], expected[clear])
    assert torch.equal(solution.scales, (clips[0] / MAX_CODE).half())


def test_every_row_takes_its_best_candidate_and_reports_its_error() -> None:
    weight, hessian, clips = problem(96, 128, candidates=5)
    solution = ops.gptq_solve(weight, hessian, clips, max_code=3)
    alone = [ops.gptq_solve(weight, hessian, clip[None], max_code=3) for clip in clips]
    direct = torch.stack([error_of(weight, hessian, ops.dequantize(one.codes, one.scales)) for one in alone])
    assert len(solution.choice.unique()) >= 3
    chosen = direct.gather(0, solution.choice.long()[None])[0]
    assert torch.all(chosen <= direct.amin(0) * (1 + 1e-4))
    assert torch.allclose(solution.error.double(), chosen, rtol=1e-4)


def test_trace_of_error_is_below_rounding() -> None:
    weight, hessian, clips = problem(64, 160)
    solution = ops.gptq_solve(weight, hessian, clips)
    step = solution.scales.float()[:, None]
    rounded = (weight / step).round().clamp(-MAX_CODE, MAX_CODE) * step
    assert solution.error.sum() < 0.7 * error_of(weight, hessian, rounded).sum()


def test_identity_hessian_rounds_and_dead_columns_are_zero() -> None:
    weight, _, clips = problem(20, 50)
    hessian = torch.eye(50)
    hessian[3, 3] = 0
    solution = ops.gptq_solve(weight, hessian, clips)
    rounded = (weight / solution.scales.float()[:, None]).round().clamp(-MAX_CODE, MAX_CODE)
    rounded[:, 3] = 0
    assert torch.equal(solution.codes, rounded.to(torch.int8))
    assert (solution.damping, solution.dead_columns) == (DAMPING, 1)


def test_layout_and_threads_change_nothing() -> None:
    weight, hessian, clips = problem(100, 90, candidates=3)
    expected = ops.gptq_solve(weight, hessian, clips, threads=1)
    strided = weight.repeat_interleave(2, dim=1)[:, ::2]
    other = ops.gptq_solve(strided, hessian.T, clips.T.contiguous().T, threads=3, block_columns=17)
    for left, right in zip(expected, other, strict=True):
        assert torch.equal(torch.as_tensor(left), torch.as_tensor(right))


def test_damping_grows_until_the_hessian_factors() -> None:
    hessian = torch.tensor([[1.0, 1.03], [1.03, 1.0]])
    assert ops.gptq_solve(torch.ones(1, 2), hessian, torch.ones(1, 1)).damping == pytest.approx(0.05)


def test_errors_are_typed_and_name_the_place() -> None:
    weight, hessian, clips = problem(3, 4)
    broken = weight.clone()
    broken[1, 2] = float("nan")
    with pytest.raises(NumericError, match=r"^weight\[1, 2\] is nan"):
        ops.gptq_solve(broken, hessian, clips)
    with pytest.raises(ArgumentError, match=r"^hessian has shape \[3, 4\], expected \[4, 4\]"):
        ops.gptq_solve(weight, hessian[:3], clips)
    with pytest.raises(ArgumentError, match=r"^clips has shape \[1, 2\], expected \[1, 3\]"):
        ops.gptq_solve(weight, hessian, clips[:, :2])
    with pytest.raises(ArgumentError, match=r"^weight has dtype Double, expected Float"):
        ops.gptq_solve(weight.double(), hessian, clips)
    with pytest.raises(ArgumentError, match=r"^max_code is 128"):
        ops.gptq_solve(weight, hessian, clips, max_code=128)
    with pytest.raises(ArgumentError, match=r"^hessian is on meta, expected cpu"):
        ops.gptq_solve(weight, hessian.to("meta"), clips)


def test_opcheck() -> None:
    weight, hessian, clips = problem(5, 8, candidates=2)
    torch.library.opcheck(torch.ops.pygolf.gptq_solve.default, (weight, hessian, clips, 31, 0.005, 128, 1))
