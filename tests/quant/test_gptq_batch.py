"""gptq_solve_batch: on the CPU the solver matrix by matrix, on CUDA the same results up to ties."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pygolf.errors import ArgumentError, NumericError
from pygolf.ops import GptqSolution
from pygolf.quant.gptq_batch import gptq_solve_batch

on_gpu = pytest.mark.gpu


def problem(matrices: int, rows: int, columns: int, candidates: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weight [M, R, C], Hessian [M, C, C] of correlated inputs of different size, clips [M, K, R] from 100 to 70 %."""
    random = torch.Generator().manual_seed(columns)
    weight = 0.02 * torch.randn(matrices, rows, columns, generator=random)
    mix = torch.randn(columns, columns, generator=random) / columns**0.5 + 0.3
    inputs = torch.randn(matrices, 3 * columns, columns, generator=random) @ mix
    inputs *= torch.randn(columns, generator=random).exp()
    fractions = torch.linspace(1.0, 0.7, candidates)
    return weight, inputs.mT @ inputs / inputs.size(1), fractions[:, None] * weight.abs().amax(2)[:, None]


def on_cuda(*tensors: Tensor, **options: float) -> list[GptqSolution]:
    return gptq_solve_batch(*[tensor.cuda() for tensor in tensors], **options)  # type: ignore[arg-type]


def error_of(weight: Tensor, hessian: Tensor, solution: GptqSolution) -> Tensor:
    residual = weight.double() - (solution.codes * solution.scales.double()[:, None]).to(weight.device)
    return ((residual @ hessian.double()) * residual).sum(1)


def test_bad_arguments_are_named() -> None:
    weight, hessian, clips = problem(2, 3, 4, 2)
    with pytest.raises(ArgumentError, match=r"^hessian has shape \[2, 3, 4\], expected \[2, 4, 4\]"):
        gptq_solve_batch(weight, hessian[:, :3], clips)
    with pytest.raises(ArgumentError, match=r"^clips is torch.float64 on cpu"):
        gptq_solve_batch(weight, hessian, clips.double())
    with pytest.raises(ArgumentError, match=r"^max_code is 128"):
        gptq_solve_batch(weight, hessian, clips, max_code=128)
    weight[1, 2, 3] = torch.nan
    with pytest.raises(NumericError, match=r"^matrix 1: weight\[2, 3\] is nan"):
        gptq_solve_batch(weight, hessian, clips)


@on_gpu
@pytest.mark.parametrize(
    ("rows", "columns", "candidates"), [(1, 1, 1), (1, 30, 2), (40, 1, 3), (64, 200, 8), (17, 257, 5)]
)
def test_cuda_equals_cpu_except_at_ties(rows: int, columns: int, candidates: int) -> None:
    weight, hessian, clips = problem(3, rows, columns, candidates)
    for found, expected in zip(on_cuda(weight, hessian, clips), gptq_solve_batch(weight, hessian, clips), strict=True):
        same = (found.codes.cpu() == expected.codes).all(1) & (found.scales.cpu() == expected.scales)
        assert same.float().mean() >= 0.9
        assert torch.equal(found.choice.cpu()[same], expected.choice[same])
        assert torch.allclose(found.error.cpu()[same], expected.error[same], rtol=1e-3)
        assert torch.allclose(found.error.cpu().sum(), expected.error.sum(), rtol=1e-2)
        assert found[4:] == expected[4:]


@on_gpu
def test_cuda_reports_the_error_of_its_codes() -> None:
    weight, hessian, clips = problem(2, 96, 128, 5)
    for m, solution in enumerate(on_cuda(weight, hessian, clips, max_code=3)):
        assert len(solution.choice.unique()) >= 3
        assert torch.allclose(solution.error.cpu().double(), error_of(weight[m], hessian[m], solution), rtol=1e-4)


def awkward_hessians(columns: int) -> Tensor:
    """Singular, of rank 1, all zero, with dead columns, over 30 orders of magnitude: [5, C, C]."""
    random = torch.Generator().manual_seed(0)
    few = torch.randn(columns // 2, columns, generator=random)
    one = torch.randn(1, columns, generator=random)
    full = torch.randn(3 * columns, columns, generator=random)
    dead = full * (torch.arange(columns) % 3 != 0)
    spread = full * torch.logspace(-15, 15, columns)
    return torch.stack([x.T @ x / len(x) for x in (few, one, 0 * full, dead, spread)])


@on_gpu
def test_cuda_copes_with_awkward_hessians() -> None:
    hessian = awkward_hessians(150)
    weight, _, clips = problem(5, 20, 150, 3)
    weight[:, 7] = 0
    found, expected = on_cuda(weight, hessian, clips), gptq_solve_batch(weight, hessian, clips)
    for m in range(5):
        assert found[m][4:] == expected[m][4:]
        ours, theirs = error_of(weight[m], hessian[m], found[m]), error_of(weight[m], hessian[m], expected[m])
        assert ours.sum() <= 1.05 * theirs.sum()
        assert not found[m].codes[7].any()
        assert found[m].scales[7] == 0
    dead = hessian[3].diagonal() == 0
    assert not found[3].codes[:, dead.cuda()].any()


@on_gpu
def test_cuda_damping_grows_for_the_matrix_that_needs_it() -> None:
    hessian = torch.tensor([[[1.0, 0.5], [0.5, 1.0]], [[1.0, 1.03], [1.03, 1.0]]])
    damping = [s.damping for s in on_cuda(torch.ones(2, 1, 2), hessian, torch.ones(2, 1, 1))]
    assert damping == pytest.approx([0.005, 0.05])
    hessian[1] = torch.tensor([[1.0, 9.0], [9.0, 1.0]])
    with pytest.raises(NumericError, match=r"^matrix 1: hessian is not positive definite"):
        on_cuda(torch.ones(2, 1, 2), hessian, torch.ones(2, 1, 1))


@on_gpu
@pytest.mark.parametrize(
    ("broken", "value"), [(0, torch.nan), (0, 1e9), (1, torch.inf), (1, -1.0), (2, -1.0), (2, 1e9)]
)
def test_cuda_names_the_matrix_with_bad_numbers(broken: int, value: float) -> None:
    tensors = problem(2, 3, 4, 2)
    tensors[broken][1].view(-1)[0] = value
    with pytest.raises(NumericError, match=r"^matrix 1: "):
        on_cuda(*tensors)


@on_gpu
def test_cuda_takes_a_large_matrix() -> None:
    random = torch.Generator("cuda").manual_seed(0)
    weight = torch.randn(1, 4096, 4096, generator=random, device="cuda")
    inputs = torch.randn(1024, 4096, generator=random, device="cuda")
    hessian = inputs.T @ inputs / 1024
    (solution,) = gptq_solve_batch(weight, hessian[None], weight.abs().amax(2)[:, None])
    assert torch.allclose(solution.error.double(), error_of(weight[0], hessian, solution), rtol=1e-3)
