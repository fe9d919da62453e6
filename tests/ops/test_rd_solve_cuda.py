"""rd_solve on CUDA: against the identity that its error has to fulfil, the textbook loop in float64, and the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pygolf import ops
from pygolf.errors import ArgumentError, NumericError

pytestmark = pytest.mark.gpu

NEXT = {
    4: ((0, 2), (2, 0), (1, 3), (3, 1)),
    8: ((0, 2), (2, 0), (4, 6), (6, 4), (5, 7), (7, 5), (1, 3), (3, 1)),
}
SHAPES = [(1, 1, 1), (2, 1, 300), (1, 300, 1), (3, 33, 130), (2, 100, 515)]


def factors(matrices: int, size: int, random: torch.Generator) -> Tensor:
    """Upper Cholesky factors of inverse Hessians of correlated inputs of different size: float64 [M, size, size]."""
    mix = torch.randn(size, size, generator=random, device="cuda", dtype=torch.float64) / size**0.5 + 0.1
    inputs = torch.randn(matrices, 2 * size, size, generator=random, device="cuda", dtype=torch.float64) @ mix
    inputs *= torch.randn(size, generator=random, device="cuda", dtype=torch.float64).mul(0.5).exp()
    hessian = inputs.mT @ inputs / (2 * size)
    hessian += 0.01 * hessian.diagonal(dim1=1, dim2=2).mean() * torch.eye(size, device="cuda")
    return torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)


def problem(
    matrices: int, rows: int, columns: int, *, two_sided: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    """Arguments of rd_solve, with about 3 bits a weight."""
    random = torch.Generator("cuda").manual_seed(rows)
    weight = torch.randn(matrices, rows, columns, generator=random, device="cuda")
    column_factor, row_factor = factors(matrices, columns, random), factors(matrices, rows, random)

    def sizes(factor: Tensor) -> Tensor:
        diagonal = factor.diagonal(dim1=1, dim2=2)
        return (diagonal / diagonal.log().mean(1, keepdim=True).exp()).float().contiguous()

    row_factor_or_none = row_factor.float() if two_sided else None
    return weight, column_factor.float(), row_factor_or_none, 0.4 * sizes(row_factor), sizes(column_factor)


def decode(codes: Tensor, steps: Tensor, states: int, plain_col: Tensor | None = None) -> Tensor:
    """float64 [M, R, C]; plain columns do not move the state."""
    if states == 1:
        return codes * steps.double()
    values, state = torch.empty_like(steps, dtype=torch.float64), torch.zeros_like(codes[:, :, 0], dtype=torch.long)
    table = torch.tensor(NEXT[states], device="cuda")
    for j in range(codes.size(2)):
        code = codes[:, :, j].long()
        plain = torch.zeros_like(code, dtype=torch.bool) if plain_col is None else plain_col[:, j, None].bool()
        values[:, :, j] = 2 * code + (~plain & (state >= states // 2)).long()
        state = torch.where(plain, state, table[state, code & 1])
    return values * steps


def textbook(weight: Tensor, factor: Tensor, steps: Tensor) -> Tensor:
    """Codes [M, R, C] of GPTQ's loop in the dtype of the weight."""
    weight, codes = weight.clone(), torch.empty_like(weight)
    for j in range(weight.size(2)):
        codes[:, :, j] = (weight[:, :, j] / steps[:, :, j]).round()
        error = (weight[:, :, j] - codes[:, :, j] * steps[:, :, j]) / factor[:, j, j, None]
        weight[:, :, j + 1 :] -= error[:, :, None] * factor[:, None, j, j + 1 :]
    return codes


@pytest.mark.parametrize("states", [1, 4, 8])
@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize(("matrices", "rows", "columns"), SHAPES)
def test_cuda_error_is_that_of_the_decoded_codes(
    states: int, two_sided: bool, matrices: int, rows: int, columns: int
) -> None:
    arguments = problem(matrices, rows, columns, two_sided=two_sided)
    weight, column_factor, row_factor, step_row, step_col = arguments
    solution = ops.rd_solve(*arguments, states=states)
    values = decode(solution.codes, step_row[:, :, None] * step_col[:, None], states)
    # D = V^T f U, and the error is the sum of f^2.
    f = torch.linalg.solve_triangular(column_factor.double(), weight - values, upper=True, left=False)
    if row_factor is not None:
        f = torch.linalg.solve_triangular(row_factor.double().mT, f, upper=False)
    assert torch.allclose(solution.error.double(), f.square().sum((1, 2)), rtol=1e-4)
    again = ops.rd_solve(*arguments, states=states)
    assert torch.equal(solution.codes, again.codes)
    assert torch.equal(solution.error, again.error)


@pytest.mark.parametrize("states", [1, 4, 8])
@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("rate_lambda", [0.0, 0.3])
def test_cuda_equals_cpu_except_at_ties(states: int, two_sided: bool, rate_lambda: float) -> None:
    arguments = problem(2, 80, 300, two_sided=two_sided)
    plain_col = torch.zeros(2, 300, dtype=torch.uint8, device="cuda")
    plain_col[0, ::7] = 1
    found = ops.rd_solve(*arguments, plain_col, states=states, rate_lambda=rate_lambda)
    on_cpu = [None if argument is None else argument.cpu() for argument in (*arguments, plain_col)]
    expected = ops.rd_solve(*on_cpu, states=states, rate_lambda=rate_lambda)  # type: ignore[arg-type]
    same_rows = (found.codes.cpu() == expected.codes).all(2).float().mean()
    # In the two-sided form, rows after one with a tie may all differ.
    assert same_rows > (0.5 if two_sided else 0.97)
    assert torch.allclose(found.error.cpu(), expected.error, rtol=5e-3)


def test_cuda_strays_from_float64_no_more_than_a_plain_fp32_loop() -> None:
    weight, factor, _, step_row, step_col = problem(4, 512, 512, two_sided=False)
    steps = step_row[:, :, None] * step_col[:, None]
    expected = textbook(weight.double(), factor.double(), steps.double())

    def strayed(codes: Tensor) -> int:
        return int((codes != expected).any(2).sum())

    found = strayed(ops.rd_solve(weight, factor, None, step_row, step_col).codes)
    assert found <= 2 * strayed(textbook(weight, factor, steps)) + 4


def test_cuda_takes_large_matrices() -> None:
    arguments = problem(1, 4096, 4096, two_sided=True)
    one_sided = ops.rd_solve(arguments[0], arguments[1], None, *arguments[3:])
    two_sided = ops.rd_solve(*arguments)
    assert two_sided.codes.abs().max() > 3
    assert one_sided.codes.abs().max() > 3


def test_cuda_work_is_ordered_by_the_current_stream() -> None:
    arguments = problem(2, 64, 256, two_sided=True)
    expected = torch.ops.pygolf.rd_solve.default(*arguments, None, 8, 0.0, 0)
    late = torch.zeros_like(arguments[0])
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(100_000_000)  # work on any other stream would overtake the copy
        late.copy_(arguments[0])
        found = torch.ops.pygolf.rd_solve.default(late, *arguments[1:], None, 8, 0.0, 0)
        assert not side.query(), "the operator waited for the device"
    side.synchronize()
    assert torch.equal(found[0], expected[0])


@pytest.mark.parametrize(
    ("broken", "value"), [(0, torch.nan), (0, 1e6), (1, torch.inf), (1, 0.0), (2, -1.0), (3, 0.0), (4, -1.0)]
)
@pytest.mark.parametrize("states", [1, 8])
def test_cuda_names_the_matrix_with_numbers_that_it_cannot_use(broken: int, value: float, states: int) -> None:
    arguments = problem(3, 5, 7, two_sided=True)
    argument = arguments[broken]
    assert argument is not None
    argument[(1,) + (0,) * (argument.dim() - 1)] = value
    with pytest.raises(NumericError, match=r"matrix 1 "):
        ops.rd_solve(*arguments, states=states)


def test_cuda_errors_are_typed() -> None:
    weight, factor, _, step_row, step_col = problem(1, 4, 6, two_sided=False)
    with pytest.raises(ArgumentError, match=r"^states is 2, expected 1 .*, 4 or 8"):
        ops.rd_solve(weight, factor, None, step_row, step_col, states=2)
    with pytest.raises(ArgumentError, match=r"^step_col has shape \[1, 5\], expected \[1, 6\]"):
        ops.rd_solve(weight, factor, None, step_row, step_col[:, 1:])
    with pytest.raises(ArgumentError, match=r"^input_factor is not on the device of weight"):
        ops.rd_solve(weight, factor.cpu(), None, step_row, step_col)
    with pytest.raises(ArgumentError, match=r"^weight is empty"):
        ops.rd_solve(weight[:, :0], factor, None, step_row[:, :0], step_col)


def test_cuda_opcheck() -> None:
    arguments = problem(2, 9, 12, two_sided=True)
    torch.library.opcheck(torch.ops.pygolf.rd_solve.default, (*arguments, None, 4, 0.0, 0))
    steps = arguments[3][:, None].expand(-1, 3, -1).contiguous()
    torch.library.opcheck(torch.ops.pygolf.gptq_rows.default, (arguments[0], arguments[1], steps, 31))
