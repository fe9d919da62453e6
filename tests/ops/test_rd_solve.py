"""The rate-distortion operator against float64 loops, all paths of tiny rows, and its contract with torch."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from pygolf import ops
from pygolf.errors import ArgumentError, NumericError

NEXT = {4: ((0, 2), (2, 0), (1, 3), (3, 1)), 8: ((0, 2), (2, 0), (4, 6), (6, 4), (5, 7), (7, 5), (1, 3), (3, 1))}


def factor(size: int, random: torch.Generator) -> Tensor:
    """Upper Cholesky factor of the inverse of a damped Hessian of correlated vectors: float32 [size, size]."""
    mix = torch.randn(size, size, generator=random) / size**0.5 + 0.3
    inputs = (torch.randn(3 * size, size, generator=random) @ mix).double()
    hessian = inputs.T @ inputs / len(inputs)
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(size)
    return torch.linalg.cholesky(torch.linalg.inv(damped), upper=True).float()


class Problem:
    """M matrices, with steps that follow the diagonals of the factors. Few bits: spreads of about two steps."""

    def __init__(self, matrices: int, rows: int, columns: int, *, two_sided: bool = True, seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        self.weight = torch.randn(matrices, rows, columns, generator=random)
        self.u = torch.stack([factor(columns, random) for _ in range(matrices)])
        self.v = torch.stack([factor(rows, random) for _ in range(matrices)]) if two_sided else None
        self.row = 0.5 * torch.rand(matrices, rows, generator=random) + 0.2
        diagonal = self.u.diagonal(dim1=1, dim2=2)
        self.col = diagonal / diagonal.mean()

    def solve(self, plain_col: Tensor | None = None, **options: float) -> ops.RdSolution:
        return ops.rd_solve(self.weight, self.u, self.v, self.row, self.col, plain_col, **options)  # type: ignore[arg-type]

    def error(self, m: int, values: Tensor) -> float:
        """trace(G D H D^T) in float64 of decoded values in steps, [R, C]."""
        d = self.weight[m].double() - values.double() * self.row[m].double()[:, None] * self.col[m].double()
        u = self.u[m].double()
        v = torch.eye(len(d), dtype=torch.float64) if self.v is None else self.v[m].double()
        return float((torch.linalg.inv(v).T @ d @ torch.linalg.inv(u)).square().sum())


def textbook(problem: Problem, m: int) -> tuple[Tensor, float]:
    """Codes [R, C] of rounding to nearest, element by element in float64, and the least distance from a tie."""
    weight, u = problem.weight[m].double(), problem.u[m].double()
    rows, columns = weight.shape
    v = torch.eye(rows, dtype=torch.float64) if problem.v is None else problem.v[m].double()
    codes, f, d = torch.zeros(rows, columns), torch.zeros_like(weight), torch.zeros_like(weight)
    margin = 0.5
    for i, j in itertools.product(range(rows), range(columns)):
        left = weight[i, j] - sum(d[a, j] * v[a, i] / v[a, a] for a in range(i))
        target = left - v[i, i] * (f[i, :j] @ u[:j, j])
        step = problem.row[m, i].double() * problem.col[m, j].double()
        codes[i, j] = (target / step).round()
        margin = min(margin, 0.5 - abs(float(target / step - codes[i, j])))
        f[i, j] = (target - codes[i, j] * step) / (v[i, i] * u[j, j])
        d[i, j] = left - codes[i, j] * step
    return codes.to(torch.int16), margin


def decoded(codes: Tensor, states: int, plain_col: Tensor | None = None) -> Tensor:
    """Values in steps of trellis codes [R, C]."""
    values = torch.zeros(codes.shape)
    for i, row in enumerate(codes.tolist()):
        state = 0
        for j, k in enumerate(row):
            plain = plain_col is not None and bool(plain_col[j])
            values[i, j] = 2 * k + (not plain and state >= states // 2)
            state = state if plain else NEXT[states][state][k & 1]
    return values


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 30), (20, 1), (7, 13), (15, 140)])
def test_plain_codes_equal_the_textbook(rows: int, columns: int, two_sided: bool) -> None:
    problem = Problem(2, rows, columns, two_sided=two_sided)
    solution = problem.solve()
    for m in range(2):
        expected, margin = textbook(problem, m)
        assert margin > 1e-6
        assert torch.equal(solution.codes[m], expected)
        assert solution.error[m].item() == pytest.approx(problem.error(m, expected), rel=1e-4)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("states", [4, 8])
def test_reported_error_is_that_of_the_decoded_codes(states: int, two_sided: bool) -> None:
    problem = Problem(1, 14, 270, two_sided=two_sided)
    plain_col = (torch.arange(270) % 5 == 2).byte()
    for flags, rate_lambda in ((None, 0.0), (plain_col, 0.0), (plain_col, 0.3)):
        solution = problem.solve(None if flags is None else flags[None], states=states, rate_lambda=rate_lambda)
        direct = problem.error(0, decoded(solution.codes[0], states, flags))
        assert solution.error[0].item() == pytest.approx(direct, rel=1e-4)


@pytest.mark.parametrize("states", [4, 8])
def test_trellis_finds_the_best_of_all_paths(states: int) -> None:
    problem = Problem(1, 6, 5, two_sided=False)
    problem.u, problem.weight = torch.eye(5)[None], 0.7 * problem.weight
    problem.u.diagonal(dim1=1, dim2=2).mul_(torch.tensor([1.0, 0.5, 2.0, 1.0, 0.7]))
    codes = problem.solve(states=states).codes[0]
    every = torch.tensor(list(itertools.product(range(-3, 4), repeat=5)))
    values = decoded(every, states)
    weight = (problem.row[0, :, None] * problem.col[0] / problem.u[0].diagonal()).double()
    for row in range(6):
        target = problem.weight[0, row] / (problem.row[0, row] * problem.col[0])
        costs = ((values - target) * weight[row]).square().sum(1)
        own = ((decoded(codes, states)[row] - target) * weight[row]).square().sum()
        assert codes[row].abs().max() <= 3
        assert own.item() == pytest.approx(costs.min().item(), rel=1e-5)


def bits(codes: Tensor) -> float:
    share = codes.flatten().unique(return_counts=True)[1] / codes.numel()
    return float(-(share * share.log2()).sum())


def rate_and_error(states: int, step: float, rate_lambda: float = 0.0) -> tuple[float, float]:
    """Bits a weight (a table for each quantizer) and mean squared error, of independent weights."""
    weight = torch.randn(1, 80, 512, generator=torch.Generator().manual_seed(5))
    steps = torch.full((1, 80), step), torch.ones(1, 512)
    codes, error = ops.rd_solve(weight, torch.eye(512)[None], None, *steps, states=states, rate_lambda=rate_lambda)
    if states == 1:
        return bits(codes), error.item() / weight.numel()
    odd = decoded(codes[0], states) % 2 == 1
    rate = sum(float(part.float().mean()) * bits(codes[0][part]) for part in (odd, ~odd))
    return rate, error.item() / weight.numel()


def test_trellis_and_rate_save_bits_at_equal_error() -> None:
    plain_bits, plain_error = rate_and_error(1, 0.5)

    def saved(states: int, rate_lambda: float = 0.0) -> float:
        rate, error = rate_and_error(states, 0.3, rate_lambda)
        return plain_bits - 0.5 * float(torch.tensor(error / plain_error).log2()) - rate

    assert 0.14 < saved(4) < saved(8) < 0.19
    assert saved(8, 0.2) > saved(8) + 0.005


def test_a_column_of_tiny_weights_is_free_when_plain() -> None:
    problem = Problem(1, 40, 60, two_sided=False)
    tiny = (torch.arange(60) % 2 == 1).byte()[None]
    problem.weight *= torch.where(tiny.bool(), 1e-3, 1.0)[:, None]
    trellis, mixed = problem.solve(states=8), problem.solve(tiny, states=8)
    assert bits(mixed.codes[0, :, 1::2]) < 0.6 * bits(trellis.codes[0, :, 1::2])
    assert mixed.error < trellis.error


def test_two_sided_error_is_below_one_sided() -> None:
    problem = Problem(1, 60, 90)
    both = problem.solve(states=8).error.item()
    alone = ops.rd_solve(problem.weight, problem.u, None, problem.row, problem.col, states=8).codes[0]
    assert both < 0.7 * problem.error(0, decoded(alone, 8))


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("states", [1, 8])
def test_threads_and_layout_change_no_bit(states: int, two_sided: bool) -> None:
    problem = Problem(3, 200, 150, two_sided=two_sided)
    expected = problem.solve(states=states, rate_lambda=0.1, threads=1)
    problem.weight = problem.weight.mT.contiguous().mT
    for threads in (2, 5):
        other = problem.solve(states=states, rate_lambda=0.1, threads=threads)
        assert torch.equal(expected.codes, other.codes)
        assert torch.equal(expected.error, other.error)


def test_zero_matrix_has_zero_codes_at_any_price() -> None:
    problem = Problem(1, 5, 9)
    problem.weight.zero_()
    solution = problem.solve(rate_lambda=0.2)
    assert not solution.codes.any()
    assert solution.error.item() == 0


def test_errors_are_typed_and_name_the_place() -> None:
    def changed(name: str, place: tuple[int, ...], value: float) -> Problem:
        problem = Problem(2, 3, 4)
        getattr(problem, name)[place] = value
        return problem

    with pytest.raises(NumericError, match=r"^weight\[1, 2, 3\] is nan"):
        changed("weight", (1, 2, 3), float("nan")).solve()
    with pytest.raises(NumericError, match=r"^output_factor\[1, 0, 2\] is inf"):
        changed("v", (1, 0, 2), float("inf")).solve()
    with pytest.raises(NumericError, match=r"^input_factor\[1, 2, 2\] is 0, expected above 0"):
        changed("u", (1, 2, 2), 0.0).solve()
    with pytest.raises(NumericError, match=r"^step_col\[1, 3\] is -1"):
        changed("col", (1, 3), -1.0).solve()
    for states in (1, 8):
        with pytest.raises(NumericError, match=r"^the code of weight\[1, 0, 0\] is .*, expected 16 bits"):
            changed("weight", (1, 0, 0), 1e20).solve(states=states)
    problem = Problem(2, 3, 4)
    with pytest.raises(ArgumentError, match=r"^states is 2"):
        problem.solve(states=2)
    with pytest.raises(ArgumentError, match=r"^rate_lambda is -1"):
        problem.solve(rate_lambda=-1.0)
    with pytest.raises(ArgumentError, match=r"^plain_col has shape \[2, 3\], expected \[2, 4\]"):
        problem.solve(torch.zeros(2, 3, dtype=torch.uint8))
    problem.u = problem.u[:, :3]
    with pytest.raises(ArgumentError, match=r"^input_factor has shape \[2, 3, 4\], expected \[2, 4, 4\]"):
        problem.solve()


@pytest.mark.parametrize("two_sided", [False, True])
def test_opcheck(two_sided: bool) -> None:
    problem = Problem(2, 3, 5, two_sided=two_sided)
    arguments = (problem.weight, problem.u, problem.v, problem.row, problem.col, None, 8, 0.1, 1)
    torch.library.opcheck(torch.ops.pygolf.rd_solve.default, arguments)
