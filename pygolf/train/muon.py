"""Parallel Muon: momentum, orthogonalised by Newton-Schulz, for the block matrices; each rank does a share.

Shapes: N matrices of one shape [R, C] in a group, padded to a multiple of W ranks.
Sources: Muon, Jordan et al. 2024 (kellerjordan.github.io/posts/muon); sharing the work over ranks with
reduce-scatter and all-gather, parameter-golf PR 399.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pygolf.runtime import Runtime

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


def newton_schulz(x_NRC: Tensor) -> Tensor:
    """Pushes the singular values of each matrix towards 1: X <- aX + (bA + cA²)X with A = XXᵀ, five times."""
    a, b, c = COEFFICIENTS
    tall = x_NRC.size(1) > x_NRC.size(2)
    x = x_NRC.mT if tall else x_NRC
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).to(x.dtype)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


@dataclass
class _Group:
    """Matrices of one shape; this rank owns `momentum_MRC`, M = padded N / W of them."""

    names: list[str]
    parameters: list[nn.Parameter]
    momentum_MRC: Tensor
    gradient_MRC: Tensor

    def stacked_gradients(self, padded: int) -> Tensor:
        first = self.parameters[0]
        stack = torch.zeros(padded, *first.shape, device=first.device)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        torch.stack(gradients, out=stack[: len(gradients)])
        return stack


class ParallelMuon:
    """Optimizer of the block matrices. Every step: `reduce()`, then `step(...)` with the clipping factor."""

    def __init__(self, parameters: dict[str, nn.Parameter], runtime: Runtime) -> None:
        self._runtime = runtime
        self._orthogonalize: Callable[[Tensor], Tensor] = newton_schulz
        if runtime.compiled:
            self._orthogonalize = torch.compile(newton_schulz, dynamic=False)
        by_shape: dict[torch.Size, list[str]] = defaultdict(list)
        for name, parameter in parameters.items():
            by_shape[parameter.shape].append(name)
        self._groups = [self._group(names, parameters) for names in by_shape.values()]

    def _group(self, names: list[str], parameters: dict[str, nn.Parameter]) -> _Group:
        members = [parameters[name] for name in names]
        share = self._padded(len(names)) // self._runtime.world_size
        momentum = torch.zeros(share, *members[0].shape, device=members[0].device)
        return _Group(names, members, momentum, torch.empty_like(momentum))

    def _padded(self, count: int) -> int:
        ranks = self._runtime.world_size
        return -(-count // ranks) * ranks

    def reduce(self) -> Tensor:
        """Averages gradients over ranks, a share for each; returns the sum of squares over all shares."""
        pending = [self._start_reduce(group) for group in self._groups]
        for work in pending:
            if work is not None:
                work.wait()
        for group in self._groups:
            group.gradient_MRC.div_(self._runtime.world_size)
        squares = [group.gradient_MRC.square().sum() for group in self._groups]
        return self._runtime.sum(torch.stack(squares).sum())

    def _start_reduce(self, group: _Group) -> dist.Work | None:
        stack = group.stacked_gradients(self._padded(len(group.names)))
        if self._runtime.world_size == 1:
            group.gradient_MRC = stack
            return None
        return dist.reduce_scatter_tensor(group.gradient_MRC, stack, async_op=True)

    @torch.no_grad()
    def step(self, clip: Tensor, lr: float, momentum: float, weight_decay: float) -> None:
        """W <- W (1 - lr wd) - lr sqrt(max(1, R/C)) NS(u), u Nesterov's momentum of the clipped gradients.

        A group's update travels to the other ranks while the next group is orthogonalised.
        """
        pending = [self._start_update(group, clip, momentum) for group in self._groups]
        for group, (update_NRC, work) in zip(self._groups, pending, strict=True):
            if work is not None:
                work.wait()
            rows, columns = group.momentum_MRC.shape[1:]
            scale = lr * max(1.0, rows / columns) ** 0.5
            weights: list[Tensor] = [*group.parameters]
            torch._foreach_mul_(weights, 1.0 - lr * weight_decay)
            torch._foreach_add_(weights, list(update_NRC[: len(weights)].unbind()), alpha=-scale)

    def _start_update(self, group: _Group, clip: Tensor, momentum: float) -> tuple[Tensor, dist.Work | None]:
        gradient = group.gradient_MRC.mul_(clip)
        group.momentum_MRC.mul_(momentum).add_(gradient)
        nesterov = gradient.add_(group.momentum_MRC, alpha=momentum)
        update = self._orthogonalize(nesterov.to(self._runtime.compute_dtype)).float()
        if self._runtime.world_size == 1:
            return update, None
        gathered = update.new_empty(self._padded(len(group.names)), *update.shape[1:])
        return gathered, dist.all_gather_into_tensor(gathered, update.contiguous(), async_op=True)

    def state(self) -> dict[str, Tensor]:
        """Momentum of every matrix by name, the same for any number of ranks. A collective: call it on all ranks."""
        state = {}
        for group in self._groups:
            full = group.momentum_MRC
            if self._runtime.world_size > 1:
                full = full.new_empty(self._padded(len(group.names)), *full.shape[1:])
                dist.all_gather_into_tensor(full, group.momentum_MRC)
            state.update({f"momentum/{name}": full[i].clone() for i, name in enumerate(group.names)})
        return state

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        for group in self._groups:
            share = group.momentum_MRC.size(0)
            first = share * self._runtime.rank
            for i, name in enumerate(group.names[first : first + share]):
                group.momentum_MRC[i].copy_(state[f"momentum/{name}"])
