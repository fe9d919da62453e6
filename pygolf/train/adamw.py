"""AdamW over groups of parameters with a learning rate each, one fused kernel a group on CUDA.

torch's own function does the arithmetic. Its optimizer class would load the compiler as well, which costs a start
about two seconds and gives nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

EPSILON = 1e-8


@dataclass(frozen=True)
class RateGroup:
    """Parameters that share a learning rate, which every step may scale."""

    parameters: list[nn.Parameter]
    lr: float


class AdamW:
    """Decoupled weight decay, bias-corrected moments (arXiv 1711.05101). Parameters without a gradient stay."""

    def __init__(self, groups: Sequence[RateGroup], betas: tuple[float, float], weight_decay: float) -> None:
        self._groups, self._betas, self._weight_decay = groups, betas, weight_decay
        self._moments = {p: _Moments.zero(p) for group in groups for p in group.parameters}

    @torch.no_grad()
    def step(self, lr_scale: float, clip: Tensor) -> None:
        """Moves every weight by its gradient times `clip`, which the device may still be computing."""
        fused = clip.device.type == "cuda"
        grad_scale = 1 / clip if fused else None
        for group in self._groups:
            moved = [p for p in group.parameters if p.grad is not None]
            if not moved:
                continue
            moments = [self._moments[p] for p in moved]
            gradients = [p.grad for p in moved if p.grad is not None]
            if not fused:
                torch._foreach_mul_(gradients, clip)
            adamw(
                list[Tensor](moved),
                gradients,
                [m.exp_avg for m in moments],
                [m.exp_avg_sq for m in moments],
                [],
                [m.step for m in moments],
                fused=fused,
                grad_scale=grad_scale,
                foreach=False,
                amsgrad=False,
                beta1=self._betas[0],
                beta2=self._betas[1],
                lr=group.lr * lr_scale,
                weight_decay=self._weight_decay,
                eps=EPSILON,
                maximize=False,
            )

    def state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """The moments of a parameter, as they are, by name."""
        return vars(self._moments[parameter])

    @torch.no_grad()
    def load(self, parameter: nn.Parameter, state: dict[str, Tensor]) -> None:
        for name, tensor in self.state(parameter).items():
            tensor.copy_(state[name])


@dataclass(frozen=True)
class _Moments:
    step: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor

    @staticmethod
    def zero(p: nn.Parameter) -> _Moments:
        # The fused kernel counts steps on the device.
        return _Moments(torch.zeros((), device=p.device), torch.zeros_like(p), torch.zeros_like(p))
