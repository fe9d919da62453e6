"""Newton-Schulz, the sharing of work over ranks, and the update rule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pygolf.runtime import Runtime
from pygolf.train.muon import ParallelMuon, newton_schulz


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 24, 8), (2, 8, 24)])
def test_newton_schulz_pushes_singular_values_to_one(shape: tuple[int, int, int]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    singular = torch.linalg.svdvals(newton_schulz(x))
    assert singular.min() > 0.4
    assert singular.max() < 1.3


def test_newton_schulz_is_the_polynomial_of_its_singular_values() -> None:
    x = torch.randn(1, 6, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, s, v = torch.linalg.svd(x[0] / x[0].norm(), full_matrices=False)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    torch.testing.assert_close(newton_schulz(x)[0], u @ torch.diag(s) @ v, atol=1e-5, rtol=1e-5)


def test_newton_schulz_of_zero_is_zero() -> None:
    assert newton_schulz(torch.zeros(1, 4, 4)).abs().max() == 0


def test_step_is_the_rule_written_out(cpu: Runtime) -> None:
    generator = torch.Generator().manual_seed(2)
    weight, gradients = torch.randn(8, 4, generator=generator), torch.randn(2, 8, 4, generator=generator)
    parameter = nn.Parameter(weight.clone())
    muon = ParallelMuon({"w": parameter}, cpu)
    expected, velocity = weight.clone(), torch.zeros(8, 4)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        norm = muon.reduce().sqrt()
        assert norm == pytest.approx(float(gradient.norm()), rel=1e-6)
        muon.step(torch.tensor(0.5), lr=0.1, momentum=0.9, weight_decay=0.2)
        velocity = 0.9 * velocity + 0.5 * gradient
        update = newton_schulz((0.5 * gradient + 0.9 * velocity)[None])[0]
        expected = expected * (1 - 0.1 * 0.2) - 0.1 * 2**0.5 * update  # sqrt(8 / 4)
    torch.testing.assert_close(parameter.detach(), expected, atol=1e-6, rtol=1e-6)


def test_state_goes_round(cpu: Runtime) -> None:
    def fresh() -> tuple[nn.Parameter, ParallelMuon]:
        parameter = nn.Parameter(torch.eye(4))
        return parameter, ParallelMuon({"w": parameter}, cpu)

    def step(parameter: nn.Parameter, muon: ParallelMuon, seed: int) -> None:
        parameter.grad = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed))
        muon.reduce()
        muon.step(torch.tensor(1.0), 0.1, 0.9, 0.0)

    first, muon = fresh()
    step(first, muon, 0)
    second, restored = fresh()
    with torch.no_grad():
        second.copy_(first)
    restored.load(muon.state())
    step(first, muon, 1)
    step(second, restored, 1)
    assert torch.equal(first, second)
