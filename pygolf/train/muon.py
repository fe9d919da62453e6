"""Parallel Muon: momentum, orthogonalised by Newton-Schulz, for the block matrices; each rank does a share.

Shapes: N matrices of one shape [R, C] in a group, padded to a multiple of W ranks.
Sources: Muon, Jordan et al. 2024 (kellerjordan.github.io/posts/muon); sharing the work over ranks with
reduce-scatter and all-gather, parameter-golf PR 399.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pygolf.model.kernels import available
from pygolf.runtime import Runtime, all_gather, reduce_scatter

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


def newton_schulz(x_NRC: Tensor) -> Tensor:
    """Pushes the singular values of each matrix towards 1: X <- aX + (bA + cA²)X with A = XXᵀ, five times."""
    a, b, c = COEFFICIENTS
    x, wide = x_NRC, torch.promote_types(x_NRC.dtype, torch.float32)
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=wide) + 1e-7).to(x.dtype)
    tall = x.size(1) > x.size(2)
    for _ in range(STEPS):
        gram = square(x.mT if tall else x)
        # aI + bA + cA² as one matrix: a bare product takes half as long as one that adds aX, which is copied first.
        polynomial = square(gram, gram, c, b, diagonal=a)
        x = x @ polynomial if tall else polynomial @ x
    return x


def square(x_NRC: Tensor, y_NRR: Tensor | None = None, a: float = 1.0, b: float = 0.0, diagonal: float = 0.0) -> Tensor:
    """a x xᵀ + b y + diagonal · I, y symmetric; without y: x xᵀ."""
    if available(x_NRC.device):
        from pygolf.train import muon_kernels

        if muon_kernels.fits(x_NRC):
            return muon_kernels.square(x_NRC, y_NRR, a, b, diagonal)
    if y_NRR is None:
        return x_NRC @ x_NRC.mT
    product = torch.baddbmm(y_NRR, x_NRC, x_NRC.mT, beta=b, alpha=a)
    product.diagonal(dim1=1, dim2=2).add_(diagonal)
    return product


def nesterov(gradient_NRC: Tensor, velocity_NRC: Tensor, clip: Tensor, momentum: float, dtype: torch.dtype) -> Tensor:
    """v <- momentum v + clip g; returns clip g + momentum v in `dtype`."""
    if available(gradient_NRC.device):
        from pygolf.train import muon_kernels

        return muon_kernels.nesterov(gradient_NRC, velocity_NRC, clip, momentum, dtype)
    gradient_NRC = gradient_NRC * clip
    velocity_NRC.mul_(momentum).add_(gradient_NRC)
    return gradient_NRC.add_(velocity_NRC, alpha=momentum).to(dtype)


@dataclass
class _Group:
    """Matrices of one shape; this rank owns `momentum_MRC`, M = padded N / W of them."""

    names: list[str]
    parameters: list[nn.Parameter]
    momentum_MRC: Tensor
    gradient_MRC: Tensor
    """This rank's share of the reduced gradients; all of `stack_NRC` if there is one rank."""
    stack_NRC: Tensor
    """All gradients of this rank, with zeros behind them up to a multiple of the ranks."""

    def stack_gradients(self) -> None:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        torch.stack(gradients, out=self.stack_NRC[: len(gradients)])


class ParallelMuon:
    """Optimizer of the block matrices. Every step: `reduce()`, then `step(...)` with the clipping factor."""

    def __init__(self, parameters: dict[str, nn.Parameter], runtime: Runtime) -> None:
        self._runtime = runtime
        by_shape: dict[torch.Size, list[str]] = defaultdict(list)
        for name, parameter in parameters.items():
            by_shape[parameter.shape].append(name)
        self._groups = [self._group(names, parameters) for names in by_shape.values()]

    def _group(self, names: list[str], parameters: dict[str, nn.Parameter]) -> _Group:
        members = [parameters[name] for name in names]
        padded, ranks = self._padded(len(names)), self._runtime.world_size
        stack = torch.zeros(padded, *members[0].shape, device=members[0].device)
        momentum = torch.zeros_like(stack[: padded // ranks])
        return _Group(names, members, momentum, stack if ranks == 1 else torch.empty_like(momentum), stack)

    def _padded(self, count: int) -> int:
        ranks = self._runtime.world_size
        return -(-count // ranks) * ranks

    def reduce(self) -> Tensor:
        """Averages gradients over ranks, a share for each; returns the sum of squares over all shares."""
        pending = [self._start_reduce(group) for group in self._groups]
        for work in pending:
            if work is not None:
                work.wait()
        shares = [group.gradient_MRC for group in self._groups]
        if self._runtime.world_size > 1:
            torch._foreach_div_(shares, self._runtime.world_size)
        return self._runtime.sum(torch.stack(torch._foreach_norm(shares)).square().sum())

    def _start_reduce(self, group: _Group) -> dist.Work | None:
        group.stack_gradients()
        if self._runtime.world_size == 1:
            return None
        return reduce_scatter(group.gradient_MRC, group.stack_NRC, async_op=True)

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
        direction = nesterov(group.gradient_MRC, group.momentum_MRC, clip, momentum, self._runtime.compute_dtype)
        update = newton_schulz(direction).float()
        if self._runtime.world_size == 1:
            return update, None
        gathered = update.new_empty(self._padded(len(group.names)), *update.shape[1:])
        return gathered, all_gather(gathered, update.contiguous(), async_op=True)

    def state(self) -> dict[str, Tensor]:
        """Momentum of every matrix by name, the same for any number of ranks. A collective: call it on all ranks."""
        state = {}
        for group in self._groups:
            full = group.momentum_MRC
            if self._runtime.world_size > 1:
                full = full.new_empty(self._padded(len(group.names)), *full.shape[1:])
                all_gather(full, group.momentum_MRC)
            state.update({f"momentum/{name}": full[i].clone() for i, name in enumerate(group.names)})
        return state

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        for group in self._groups:
            share = group.momentum_MRC.size(0)
            first = share * self._runtime.rank
            for i, name in enumerate(group.names[first : first + share]):
                group.momentum_MRC[i].copy_(state[f"momentum/{name}"])
