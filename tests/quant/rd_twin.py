"""Slow and obvious: the rate-distortion solver element by element, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

# State and parity of the code -> next state; states of the upper half use the odd multiples.
NEXT_STATE = {
    4: ((0, 2), (2, 0), (1, 3), (3, 1)),
    8: ((0, 2), (2, 0), (4, 6), (6, 4), (5, 7), (7, 5), (1, 3), (3, 1)),
}


def rd_solve(weight_RC: Tensor, u_CC: Tensor, v_RR: Tensor | None, step_RC: Tensor) -> Tensor:
    """Codes by rounding to nearest, row by row: the error of element (i, j) moves all that come later in both ways."""
    left, u = weight_RC.double().clone(), u_CC.double()
    v = torch.eye(len(left), dtype=torch.float64) if v_RR is None else v_RR.double()
    codes = torch.zeros_like(left)
    for i in range(left.size(0)):
        for j in range(left.size(1)):
            codes[i, j] = (left[i, j] / step_RC[i, j]).round()
            error = (left[i, j] - codes[i, j] * step_RC[i, j]) / (u[j, j] * v[i, i])
            pushed = error * torch.outer(v[i, i:], u[j, j:])
            left[i:, j:] -= pushed
    return codes.to(torch.int16)


def trellis_values(codes_RC: Tensor, column_logs_C: Tensor, states: int) -> Tensor:
    """2 k + q of every code, one at a time; 2 k in columns of odd logarithm."""
    values = torch.zeros(codes_RC.shape)
    for i, row in enumerate(codes_RC.tolist()):
        state = 0
        for j, k in enumerate(row):
            plain = column_logs_C[j] % 2 == 1
            values[i, j] = 2 * k + (not plain and state >= states // 2)
            state = state if plain else NEXT_STATE[states][state][k & 1]
    return values
