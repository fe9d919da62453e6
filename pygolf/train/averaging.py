"""Exponential moving average of all weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pygolf.train.schedule import ema_decay


class WeightAverage:
    """avg <- d avg + (1 - d) w after every step, d = min(decay, t / (t + 9)); see `schedule.ema_decay`."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._weights = dict(model.named_parameters())
        self.tensors = {name: p.detach().clone() for name, p in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights behind step number `step` (0 for the first)."""
        weight = 1.0 - ema_decay(step, self._decay)
        torch._foreach_lerp_(list(self.tensors.values()), list(self._weights.values()), weight)

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
