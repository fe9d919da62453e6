"""Step sizes and error feedback of the rate-distortion quantizer, from the second moments of every matrix.

    (H + λ mean(diag H) I)⁻¹ = Uᵀ U, U upper        step_ij = s · rho_i · kappa_j
    kappa_j = U_jj                                   rho_i = 1 / sqrt(G_ii), or V_ii with feedback along rows too

Columns keep their natural order. rho and kappa are rounded to even 8-bit logarithms, factor = 2^(n / 16), which is what
an artifact stores; the rounding moves each by at most 4.4 %.
Shapes: N matrices of one shape, R rows (outputs), C columns (inputs).
Sources: GPTQ, arXiv 2210.17323; step by U_jj, WaterSIC arXiv 2603.04956; both sides, YAQA arXiv 2505.22988.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pygolf.errors import NumericError
from pygolf.quant.moments import Moments

LOGS_PER_OCTAVE = 16
MOST_LOG = 126
"""Logarithms are cut off this far from their median, so that they fit into a byte and an offset."""
COLUMN_DAMPING = 0.01
ROW_DAMPING = 0.05
MOST_DAMPING = 1.0
ROW_FLOOR = 1e-2
"""Least G_ii, in parts of the mean. The logit of a word that is never likely has next to no gradient, but a large error
would make it likely: that is more than the second moments see."""
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Factors:
    """What coding one matrix needs beside its weights; on the device of the moments."""

    columns: Tensor
    """U, fp32 [C, C]."""
    rows: Tensor | None
    """V, fp32 [R, R], for feedback along rows too."""
    row_logs: Tensor
    """int16 [R]: n of rho = 2^((n + center) / 16)."""
    column_logs: Tensor
    """float64 [C]: m of kappa = 2^(m / 16), likewise without what `center` took out, not rounded."""
    center: int
    """Logarithm common to all elements; logs are the differences from it, at most MOST_LOG."""


def matrix_factors(moments: dict[str, Moments], *, two_sided: bool, warn: Warn) -> dict[str, Factors]:
    """Factors of every matrix; feedback along rows where `two_sided` asks for it and the whole G was gathered.

    `warn` is told of each matrix whose damping had to rise.

    Raises NumericError, naming the matrix, where a moment is not finite or cannot be factored with any damping.
    """
    columns = _upper_factors({name: m.columns for name, m in moments.items()}, COLUMN_DAMPING, "inputs", warn)
    rows: dict[str, Tensor] = {}
    if two_sided:
        whole = {name: m.rows for name, m in moments.items() if m.rows.dim() == 2}
        rows = _upper_factors(whole, ROW_DAMPING, "gradients", warn)
    return {name: _factors(m, columns[name], rows.get(name)) for name, m in moments.items()}


def factor_values(logs: Tensor) -> Tensor:
    """2^(n / 16) of int16 logarithms, fp32."""
    return torch.exp2(logs.double() / LOGS_PER_OCTAVE).float()


def _factors(moments: Moments, upper_CC: Tensor, row_upper_RR: Tensor | None) -> Factors:
    if row_upper_RR is None:
        weight_R = moments.row_weights
        floor = (ROW_FLOOR * weight_R.mean()).clamp_min(torch.finfo(torch.float32).tiny)
        rho_R = weight_R.clamp_min(floor).rsqrt()
    else:
        rho_R = row_upper_RR.diagonal()
    row_logs, row_center = _centered(rho_R)
    column_logs, column_center = _centered(upper_CC.diagonal())
    return Factors(upper_CC, row_upper_RR, rounded_logs(row_logs), column_logs, row_center + column_center)


def rounded_logs(logs: Tensor, odd: Tensor | None = None) -> Tensor:
    """int16: the nearest even integers, and the nearest odd ones where `odd` says so.

    The even grid costs less loss than the bytes of a finer one; odd logarithms of columns mark them as plain (see rd).
    """
    shift = torch.zeros_like(logs) if odd is None else odd.to(logs.dtype)
    return (2 * ((logs - shift) / 2).round() + shift).to(torch.int16)


def _centered(values: Tensor) -> tuple[Tensor, int]:
    """Logarithms less their rounded median, cut off at MOST_LOG, and that median."""
    logs = LOGS_PER_OCTAVE * values.double().log2()
    median = logs.median().round()
    return (logs - median).clamp(-MOST_LOG, MOST_LOG), int(median)


def _upper_factors(moments: dict[str, Tensor], damping: float, what: str, warn: Warn) -> dict[str, Tensor]:
    """U of every moment [C, C], in batches of one size; matrices that share a moment share its factor."""
    distinct = {id(moment): (name, moment) for name, moment in reversed(moments.items())}
    by_size: dict[int, list[tuple[str, Tensor]]] = {}
    for name, moment in distinct.values():
        by_size.setdefault(len(moment), []).append((name, moment))
    found: dict[int, Tensor] = {}
    for group in by_size.values():
        for batch in _batches(group):
            uppers = _factor_batch(batch, damping, what, warn)
            found |= {id(moment): upper for (_, moment), upper in zip(batch, uppers, strict=True)}
    return {name: found[id(moment)] for name, moment in moments.items()}


def _batches(group: list[tuple[str, Tensor]]) -> Iterable[list[tuple[str, Tensor]]]:
    """Runs of matrices of at most 2^25 elements, so that the float64 copies stay small."""
    size = max(1, (1 << 25) // max(1, group[0][1].numel()))
    return (group[i : i + size] for i in range(0, len(group), size))


def _factor_batch(batch: list[tuple[str, Tensor]], damping: float, what: str, warn: Warn) -> Tensor:
    """fp32 [N, C, C]. Computed in float64; damping rises tenfold for those that cannot be factored."""
    h_NCC = torch.stack([moment for _, moment in batch]).double()
    mean_N = h_NCC.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    for (name, _), finite in zip(batch, h_NCC.flatten(1).isfinite().all(dim=1).tolist(), strict=True):
        if not finite:
            raise NumericError(f"{name}: the second moment of its {what} is not finite; does it hold NaN or infinity?")
    # Without any signal every error costs the same.
    h_NCC += torch.diag_embed((mean_N == 0).double()[:, None].expand(-1, h_NCC.size(-1)))
    mean_N = torch.where(mean_N == 0, 1.0, mean_N)
    damping_N = torch.full_like(mean_N, damping)
    while True:
        lower_NCC, info_N = _reversed_cholesky(h_NCC, damping_N * mean_N)
        failed = info_N != 0
        if not failed.any():
            break
        damping_N = torch.where(failed, damping_N * 10, damping_N)
        if bool((damping_N > MOST_DAMPING).any()):
            name = batch[int(damping_N.argmax())][0]
            raise NumericError(
                f"{name}: the second moment of its {what} is not positive definite even with damping {MOST_DAMPING:g}"
            )
    for (name, _), used in zip(batch, damping_N.tolist(), strict=True):
        if used > damping * 1.01:
            warn(f"{name}: the second moment of its {what} is nearly singular; damping raised to {used:g}")
    identity = torch.eye(h_NCC.size(-1), dtype=h_NCC.dtype, device=h_NCC.device).expand_as(h_NCC)
    return torch.linalg.solve_triangular(lower_NCC.flip(-1, -2), identity, upper=True).float()


def _reversed_cholesky(h_NCC: Tensor, added_N: Tensor) -> tuple[Tensor, Tensor]:
    """L of J (H + added I) J = L Lᵀ, J the reversal, and failures. With R = J L J, H = R Rᵀ and U = R⁻¹."""
    damped = h_NCC + torch.diag_embed(added_N[:, None].expand(-1, h_NCC.size(-1)))
    lower, info = torch.linalg.cholesky_ex(damped.flip(-1, -2))
    return lower, torch.where(lower.diagonal(dim1=-2, dim2=-1).isfinite().all(dim=-1), info, 1)
