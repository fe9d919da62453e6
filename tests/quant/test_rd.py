"""Codes at one step: as the slow solver gives them, read back as they were meant, and the loss rises as predicted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rd_twin import rd_solve, trellis_values
from torch import Tensor

from pygolf._core import ArtifactReader, ArtifactWriter
from pygolf.config import QuantConfig
from pygolf.errors import NumericError
from pygolf.quant.factors import Factors, factor_values, matrix_factors
from pygolf.quant.moments import Moments
from pygolf.quant.rd import UNIT, CodedMatrix, CodedModel, Coder, dequantize


def problem(rows: int, columns: int, seed: int) -> tuple[Tensor, Moments]:
    g = torch.Generator().manual_seed(seed)
    x, y = (
        torch.randn(2000, n, generator=g) @ (torch.eye(n) + 0.5 * torch.randn(n, n, generator=g) / n**0.5)
        for n in (columns, rows)
    )
    return torch.randn(rows, columns, generator=g), Moments(x.T @ x / 2000, y.T @ y / 2000)


@pytest.fixture
def weights_and_moments() -> tuple[dict[str, Tensor], dict[str, Moments]]:
    problems = {name: problem(r, c, i) for i, (name, r, c) in enumerate((("a", 9, 14), ("b", 9, 14), ("c", 5, 3)))}
    return {n: p[0] for n, p in problems.items()}, {n: p[1] for n, p in problems.items()}


def factors_of(moments: dict[str, Moments], two_sided: bool = False) -> dict[str, Factors]:
    return matrix_factors(moments, two_sided=two_sided, warn=pytest.fail)


@pytest.mark.parametrize("two_sided", [False, True])
def test_codes_are_those_of_the_slow_solver(weights_and_moments, two_sided: bool) -> None:  # type: ignore[no-untyped-def]
    weights, moments = weights_and_moments
    factors = factors_of(moments, two_sided)
    coded = Coder(weights, factors, states=1, threads=1).code(0.02)
    for name, weight in weights.items():
        f, m = factors[name], coded[name]
        step = m.unit * factor_values(m.row_logs[:, None] + m.column_logs)
        assert torch.equal(m.codes, rd_solve(weight, f.columns, f.rows, step)), name
        assert m.codes.abs().max() > 2


@pytest.mark.parametrize("states", [1, 4, 8])
def test_the_artifact_reads_back_the_same_values(weights_and_moments, states: int, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    weights, moments = weights_and_moments
    coded = Coder(weights, factors_of(moments), states=states, threads=1).code(0.05)
    writer = ArtifactWriter("{}")
    CodedModel(coded, {}).add_to(writer, QuantConfig())
    writer.write(str(tmp_path / "m.golf"))
    reader = ArtifactReader(str(tmp_path / "m.golf"))
    for name, values in dequantize(coded).items():
        np.testing.assert_allclose(reader.dequantize(name), values.numpy(), rtol=3e-7)


@pytest.mark.parametrize("states", [4, 8])
def test_multiples_follow_the_trellis(states: int) -> None:
    codes = torch.randint(-9, 9, (2, 6, 40), generator=torch.Generator().manual_seed(0)).to(torch.int16)
    logs = torch.randint(-20, 20, (2, 40)).to(torch.int16)
    expected = [trellis_values(*matrix, states) for matrix in zip(codes, logs, strict=True)]
    for matrix, log, values in zip(codes, logs, expected, strict=True):
        coded = CodedMatrix(matrix, torch.zeros(6, dtype=torch.int16), log, 1.0, states)
        assert torch.equal((coded.values() / factor_values(log)).round(), values)


@pytest.mark.parametrize(("states", "two_sided"), [(1, False), (1, True), (8, False)])
def test_the_loss_rises_by_weights_times_step_squared_over_24(states: int, two_sided: bool) -> None:
    weight, moments = problem(96, 64, 0)
    step = 2e-3
    whole = {"w": moments}
    coded = Coder({"w": weight}, factors_of(whole, two_sided), states=states, threads=1).code(step)
    judge = moments if two_sided else Moments(moments.columns, moments.row_weights)
    rise = judge.loss(weight - dequantize(coded)["w"])
    assert rise == pytest.approx(weight.numel() * step**2 / 24, rel=0.2)


def test_the_estimate_of_bytes_is_near_the_packed_size() -> None:
    weight, moments = problem(200, 300, 0)
    coder = Coder({"w": weight}, factors_of({"w": moments}), states=8, threads=1)
    for step in (1e-3, 4e-3):
        writer = ArtifactWriter("{}")
        CodedModel(coder.code(step), {}).add_to(writer, QuantConfig())
        assert len(writer.serialize()) == pytest.approx(coder.estimate_bytes(step), rel=0.05)


def test_a_weight_that_is_not_finite_is_named(weights_and_moments) -> None:  # type: ignore[no-untyped-def]
    weights, moments = weights_and_moments
    weights["b"][1, 1] = torch.inf
    with pytest.raises(NumericError, match=r"^b holds NaN or infinity"):
        Coder(weights, factors_of(moments), states=1, threads=1)


def test_units_are_equal_in_error() -> None:
    """A trellis of unit UNIT · s has about the squared error of rounding to multiples of s."""
    weight, whole = problem(128, 128, 1)
    moments = Moments(whole.columns, whole.row_weights)
    errors = {}
    for states in UNIT:
        coded = Coder({"w": weight}, factors_of({"w": moments}), states=states, threads=1).code(2e-3)
        errors[states] = moments.loss(weight - dequantize(coded)["w"])
    assert errors[4] == pytest.approx(errors[1], rel=0.1)
    assert errors[8] == pytest.approx(errors[1], rel=0.1)


@pytest.mark.gpu
@pytest.mark.parametrize(("states", "two_sided"), [(1, False), (8, False), (8, True)])
def test_cuda_codes_as_the_cpu_does(states: int, two_sided: bool) -> None:
    weight, moments = problem(160, 200, 0)
    errors = []
    for device in ("cpu", "cuda"):
        there = Moments(moments.columns.to(device), moments.rows.to(device))
        factors = matrix_factors({"w": there}, two_sided=two_sided, warn=pytest.fail)
        coded = Coder({"w": weight.to(device)}, factors, states=states, threads=1).code(0.05)
        errors.append(moments.loss(weight - dequantize(coded)["w"].cpu()))
    assert errors[1] == pytest.approx(errors[0], rel=0.02)  # a tie broken otherwise changes what follows
