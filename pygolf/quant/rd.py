"""The rate-distortion quantizer: integer codes of every matrix at one global step, for an entropy coder to pack.

    w_ij ≈ (2 k_ij + q_ij) · unit_ij, or k_ij · unit_ij without a trellis        unit_ij = unit · 2^((n_i + m_j) / 16)

`step` s is the one number that trades bytes for loss: with it, a matrix of n weights raises the loss by about n s² / 24
where its second moments hold, whatever the matrix; so every weight of the model has the same slope of loss by bits.
A trellis unit is finer than s by UNIT, so that s keeps this meaning.
Shapes: N matrices of one shape, R rows (outputs), C columns (inputs).
Sources: the step rule, RECIPE 6b; trellis codes, QTIP arXiv 2406.11235 and Ungerboeck 1982.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pygolf import ops
from pygolf._core import ArtifactWriter, dequantize_factors
from pygolf.config import QuantConfig
from pygolf.errors import NumericError
from pygolf.quant.factors import LOGS_PER_OCTAVE, Factors, factor_values, rounded_logs

UNIT = {1: 1.0, 4: 0.56, 8: 0.567}
"""Trellis states -> unit / s, for equal squared error."""
TRELLIS_BITS = {1: 0.0, 4: 0.164, 8: 0.178}
"""Bits a weight that a trellis saves at equal squared error (Gaussian source)."""
RATE_LAMBDA = {1: 0.06, 4: 0.15, 8: 0.15}
"""What the solver pays for a bit, in squared units: codes a little nearer to zero for a little more error."""
PLAIN_BELOW = 0.6
"""Columns of a trellis tensor whose weights are mostly within this many units of zero are better off without it."""
LEAST_UNIT, MOST_UNIT = 2.0**-60, 2.0**46
"""Units that an artifact can hold."""


@dataclass(frozen=True)
class CodedMatrix:
    """A matrix as codes and factors; what an artifact holds of it."""

    codes: Tensor
    """int16 [R, C]."""
    row_logs: Tensor
    """int16 [R]."""
    column_logs: Tensor
    """int16 [C]; odd ones mark plain columns, where a trellis code k stands for 2 k and leaves the state alone."""
    unit: float
    """Step of the multiples, before the factors of row and column; a float32 value."""
    states: int
    """Of the trellis; 1 for none."""

    def arrays(self) -> tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]:
        """Codes, row_logs and column_logs for the artifact's writer."""
        codes, row_logs, column_logs = (t.cpu().numpy() for t in (self.codes, self.row_logs, self.column_logs))
        return codes, row_logs, column_logs

    def values(self) -> Tensor:
        """fp32 [R, C]."""
        values = dequantize_factors(*self.arrays(), step=self.unit, states=self.states)
        return torch.from_numpy(values).to(self.codes.device)


def dequantize(matrices: dict[str, CodedMatrix]) -> dict[str, Tensor]:
    """The values of every matrix, fp32 [R, C], where its codes lie, with the bits that a reader gets."""
    return {name: m.values() for name, m in matrices.items()}


@dataclass(frozen=True)
class CodedModel:
    """All parameters by name: coded matrices and plain vectors."""

    matrices: dict[str, CodedMatrix]
    vectors: dict[str, Tensor]

    def add_to(self, writer: ArtifactWriter, config: QuantConfig) -> None:
        """Adds the matrices to an artifact, in the one codec that knows a trellis."""
        for name, m in self.matrices.items():
            writer.add_factors(name, *m.arrays(), step=m.unit, states=m.states)


@dataclass(frozen=True)
class _Group:
    """Matrices of one shape, stacked once for all steps."""

    names: list[str]
    weights_NRC: Tensor
    columns_NCC: Tensor
    rows_NRR: Tensor | None
    row_logs_NR: Tensor
    column_logs_NC: Tensor
    """float64, not rounded."""
    center_N: Tensor
    """float64: the factor common to all elements of a matrix."""
    row_spread_NR: Tensor
    """float64: root mean square of a row's weights in units of its steps at s = 1."""
    column_spread_NC: Tensor
    """The same of the columns."""


class Coder:
    """Codes a set of matrices at any step; everything that does not depend on the step is prepared once."""

    def __init__(self, weights: dict[str, Tensor], factors: dict[str, Factors], *, states: int, threads: int) -> None:
        self._states, self._threads = states, threads
        groups: dict[tuple[int, ...], list[str]] = {}
        for name, weight in weights.items():
            if not weight.isfinite().all():
                raise NumericError(f"{name} holds NaN or infinity; it cannot be quantized")
            groups.setdefault((*weight.shape, int(factors[name].rows is not None)), []).append(name)
        self._groups = [_stacked(names, weights, factors) for names in groups.values()]

    def code(self, step: float) -> dict[str, CodedMatrix]:
        """Codes of every matrix at step s. Raises NumericError for codes beyond 16 bits: the step is far too small."""
        coded: dict[str, CodedMatrix] = {}
        for group in self._groups:
            # The float32 that an artifact stores, within its limits.
            unit_N = (step * UNIT[self._states] * group.center_N).clamp(LEAST_UNIT, MOST_UNIT).float()
            plain_NC = group.column_spread_NC * group.center_N[:, None] / unit_N[:, None] < PLAIN_BELOW
            if self._states == 1:
                plain_NC.zero_()
            column_logs_NC = rounded_logs(group.column_logs_NC, odd=plain_NC)
            codes_NRC, _ = ops.rd_solve(
                group.weights_NRC,
                group.columns_NCC,
                group.rows_NRR,
                unit_N[:, None] * factor_values(group.row_logs_NR),
                factor_values(column_logs_NC),
                plain_NC.to(torch.uint8),
                states=self._states,
                rate_lambda=RATE_LAMBDA[self._states],
                threads=self._threads,
            )
            parts = zip(codes_NRC, group.row_logs_NR, column_logs_NC, unit_N.tolist(), strict=True)
            coded |= {name: CodedMatrix(*part, self._states) for name, part in zip(group.names, parts, strict=True)}
        return coded

    def estimate_bytes(self, step: float) -> float:
        """Bytes of the codes if weights were Gaussian: n/8 · ½ log2(1 + 2πe σ² / s²), less what the trellis saves."""
        total = 0.0
        for group in self._groups:
            bits_NR = 0.5 * torch.log2(1 + 2 * math.pi * math.e * (group.row_spread_NR / step).square())
            saved = TRELLIS_BITS[self._states]
            total += float((bits_NR - saved).clamp_min(0).sum()) * group.weights_NRC.size(2) / 8
        return total


def _stacked(names: list[str], weights: dict[str, Tensor], factors: dict[str, Factors]) -> _Group:
    weights_NRC = torch.stack([weights[name].detach().float() for name in names])
    group = [factors[name] for name in names]
    rows = [f.rows for f in group if f.rows is not None]
    row_logs_NR, column_logs_NC = torch.stack([f.row_logs for f in group]), torch.stack([f.column_logs for f in group])
    center_N = 2.0 ** (row_logs_NR.new_tensor([f.center for f in group], dtype=torch.float64) / LOGS_PER_OCTAVE)
    in_steps_NRC = weights_NRC / factor_values(row_logs_NR)[:, :, None] / factor_values(column_logs_NC)[:, None, :]
    squares_NRC = in_steps_NRC.square()
    return _Group(
        names,
        weights_NRC,
        torch.stack([f.columns for f in group]),
        torch.stack(rows) if rows else None,
        row_logs_NR,
        column_logs_NC,
        center_N,
        squares_NRC.mean(dim=2).sqrt().double() / center_N[:, None],
        squares_NRC.mean(dim=1).sqrt().double() / center_N[:, None],
    )
