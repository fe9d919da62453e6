"""GPTQ with clip candidates for many matrices of one shape at once; on CUDA, in few launches.

The result is that of :func:`pygolf.ops.gptq_solve` for each matrix, up to ties. With the columns sorted by H_jj and
H / unit + damping = R Rᵀ, R upper triangular, U = R⁻¹ is GPTQ's factor, and with d = w - q s

    sum_j e_j² = d (H / unit + damping) dᵀ            so d H dᵀ = unit (sum_j e_j² - damping |d|²)

Shapes: M matrices, R rows (outputs), C columns (inputs, in coding order from `_Factors` on), K candidates.
Source: Frantar et al., arXiv 2210.17323.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pygolf import ops
from pygolf.errors import ArgumentError, NumericError
from pygolf.ops import GptqSolution

LEAST_STEP = 2.0**-24
"""The smallest half-precision number that is not zero."""


def gptq_solve_batch(
    weight: Tensor,
    hessian: Tensor,
    clips: Tensor,
    *,
    max_code: int = 31,
    damping: float = 0.005,
    threads: int = 0,
) -> list[GptqSolution]:
    """:func:`pygolf.ops.gptq_solve` for every matrix: weight [M, R, C], hessian [M, C, C], clips [M, K, R].

    All float32 on one device, where the results stay. `threads` counts on the CPU only. Raises ArgumentError, and
    NumericError, which names the matrix by its number.
    """
    _check(weight, hessian, clips, max_code, damping)
    if weight.is_cuda:
        return _solve(weight, hessian, clips, max_code, damping)
    solutions = []
    for m, problem in enumerate(zip(weight, hessian, clips, strict=True)):
        try:
            solutions.append(ops.gptq_solve(*problem, max_code=max_code, damping=damping, threads=threads))
        except NumericError as error:
            raise NumericError(f"matrix {m}: {error}") from None
    return solutions


def _check(weight: Tensor, hessian: Tensor, clips: Tensor, max_code: int, damping: float) -> None:
    if weight.dim() != 3 or clips.dim() != 3 or 0 in (*weight.shape, *clips.shape):
        raise ArgumentError(
            f"weight has shape {list(weight.shape)} and clips {list(clips.shape)}, expected [M, R, C] and [M, K, R], "
            "none of them 0"
        )
    matrices, rows, columns = weight.shape
    shapes = {"weight": weight.shape, "hessian": (matrices, columns, columns), "clips": (matrices, clips.size(1), rows)}
    for (name, shape), tensor in zip(shapes.items(), (weight, hessian, clips), strict=True):
        if tuple(tensor.shape) != tuple(shape):
            raise ArgumentError(f"{name} has shape {list(tensor.shape)}, expected {list(shape)}; stack matrices alike")
        if tensor.dtype != torch.float32 or tensor.device != weight.device:
            raise ArgumentError(
                f"{name} is {tensor.dtype} on {tensor.device}, expected torch.float32 on {weight.device}; convert it"
            )
    if not 1 <= max_code <= 127:
        raise ArgumentError(f"max_code is {max_code}, expected 1 to 127 (31 for int6)")
    if not 0 < damping <= 1:
        raise ArgumentError(f"damping is {damping}, expected above 0 and up to 1 (0.005 is usual)")


@dataclass(frozen=True)
class _Factors:
    """What GPTQ needs to know of the Hessians; columns in coding order, dead ones last."""

    order_MC: Tensor
    live_MC: Tensor
    unit_M: Tensor
    damping_M: Tensor
    upper_MCC: Tensor


def _solve(
    weight_MRC: Tensor, hessian_MCC: Tensor, clips_MKR: Tensor, max_code: int, damping: float
) -> list[GptqSolution]:
    _check_values(weight_MRC, hessian_MCC, clips_MKR, max_code)
    factors = _factors(hessian_MCC, damping)
    order_MRC = factors.order_MC[:, None].expand_as(weight_MRC)
    sorted_MRC = weight_MRC.gather(2, order_MRC) * factors.live_MC[:, None]
    zero_MR = (sorted_MRC == 0).all(2)
    steps_MKR = (clips_MKR / max_code).half().float().clamp_min(LEAST_STEP)
    codes_MKRC, square_MKR = ops.gptq_rows(sorted_MRC, factors.upper_MCC, steps_MKR, max_code=max_code)

    residual_MKRC = torch.addcmul(sorted_MRC[:, None], codes_MKRC.float(), steps_MKR[..., None], value=-1)
    residual_MKR = torch.linalg.vector_norm(residual_MKRC, dim=3, dtype=torch.float64).square()
    error_MKR = (square_MKR - factors.damping_M[:, None, None] * residual_MKR).clamp_min(0)
    error_MKR *= factors.unit_M[:, None, None]
    choice_MR = error_MKR.argmin(1)

    def chosen(values: Tensor) -> Tensor:
        return values.gather(1, choice_MR[:, None])[:, 0]

    best_MRC = codes_MKRC.gather(1, choice_MR[:, None, :, None].expand(-1, 1, -1, weight_MRC.size(2)))[:, 0]
    codes_MRC = torch.empty_like(best_MRC, dtype=torch.int8).scatter_(2, order_MRC, best_MRC.to(torch.int8))
    scales_MR = chosen(steps_MKR).masked_fill(zero_MR, 0).half()
    error_MR = chosen(error_MKR).float()
    dead_M = (~factors.live_MC).sum(1).tolist()
    rows = zip(codes_MRC, scales_MR, choice_MR.int(), error_MR, factors.damping_M.tolist(), dead_M, strict=True)
    return [GptqSolution(*row) for row in rows]


def _check_values(weight_MRC: Tensor, hessian_MCC: Tensor, clips_MKR: Tensor, max_code: int) -> None:
    """What the CPU solver finds wrong with numbers, found here with one wait for the device."""
    most = torch.finfo(torch.float16).max * max_code
    diagonal_MC = hessian_MCC.diagonal(dim1=1, dim2=2)
    codable = f"at most {most:g}, the largest that a half-precision step can code"
    problems = [
        ("weight", weight_MRC, ~(weight_MRC.abs() <= most), codable),
        ("hessian", hessian_MCC, ~hessian_MCC.isfinite(), "a finite number"),
        ("the diagonal of hessian", diagonal_MC, diagonal_MC < 0, "0 or more"),
        ("clips", clips_MKR, clips_MKR < 0, "0 or more"),
        ("clips", clips_MKR, ~(clips_MKR / max_code).half().isfinite(), codable),
    ]
    found = torch.stack([wrong.any() for _, _, wrong, _ in problems]).tolist()
    for (name, values, wrong, expected), is_wrong in zip(problems, found, strict=True):
        if is_wrong:
            matrix, *place = wrong.nonzero()[0].tolist()
            raise NumericError(
                f"matrix {matrix}: {name} at {place} is {values[(matrix, *place)].item():g}, expected {expected}; "
                "look for the step that made it"
            )


def _factors(hessian_MCC: Tensor, damping: float) -> _Factors:
    """Sorts, scales and factors, with damping raised tenfold for those matrices that need it."""
    diagonal_MC = hessian_MCC.diagonal(dim1=1, dim2=2).double()
    diagonal_MC, order_MC = diagonal_MC.sort(dim=1, descending=True, stable=True)
    live_MC = diagonal_MC > 0
    unit_M = diagonal_MC.sum(1) / live_MC.sum(1).clamp_min(1)
    unit_M = torch.where(unit_M > 0, unit_M, 1)
    sorted_MCC = hessian_MCC.gather(1, order_MC[:, :, None].expand_as(hessian_MCC))
    sorted_MCC = sorted_MCC.gather(2, order_MC[:, None].expand_as(hessian_MCC)).double()
    sorted_MCC *= (live_MC / unit_M[:, None])[:, :, None] * live_MC[:, None]
    sorted_MCC.diagonal(dim1=1, dim2=2).add_(~live_MC)  # dead columns stand alone

    damping_M = torch.full_like(unit_M, damping)
    root_MCC = _damped_root(sorted_MCC, damping_M)
    identity_CC = torch.eye(order_MC.size(1), dtype=torch.float64, device=order_MC.device)
    upper_MCC = torch.linalg.solve_triangular(root_MCC, identity_CC.expand_as(root_MCC), upper=True)
    return _Factors(order_MC, live_MC, unit_M, damping_M, upper_MCC.float())


def _damped_root(hessian_MCC: Tensor, damping_M: Tensor) -> Tensor:
    """R of H + damping = R Rᵀ, R upper triangular. Raises `damping_M`, in place, where that cannot be factored."""
    while True:
        damped_MCC = hessian_MCC + damping_M[:, None, None] * torch.eye(hessian_MCC.size(1), device=hessian_MCC.device)
        lower_MCC, info_M = torch.linalg.cholesky_ex(damped_MCC.flip(1, 2))
        # With H positive semidefinite no pivot is below the damping; half of it tells rounding from a wrong H.
        pivot_M = lower_MCC.diagonal(dim1=1, dim2=2).square().amin(1)
        failed_M = (info_M > 0) | ~(pivot_M >= damping_M / 2)
        failed = failed_M.nonzero().flatten().tolist()
        if not failed:
            return lower_MCC.flip(1, 2)
        for m in failed:
            if damping_M[m] >= 1:
                raise NumericError(
                    f"matrix {m}: hessian is not positive definite even with its mean diagonal added, expected a mean "
                    "of x xᵀ; compute it again from the layer's inputs"
                )
        damping_M[failed_M] = (10 * damping_M[failed_M]).clamp_max(1)
