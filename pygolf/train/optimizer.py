"""The whole optimizer of a step: reduction, clipping, Muon for block matrices, AdamW for everything else."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pygolf.config import TrainConfig
from pygolf.model.gpt import GPT, parameter_role
from pygolf.model.graphs import LossFunction
from pygolf.runtime import Runtime
from pygolf.train.adamw import AdamW, RateGroup
from pygolf.train.muon import ParallelMuon
from pygolf.train.schedule import momentum

ADAM_BETAS = (0.9, 0.95)


class Bucket:
    """Small gradients of all ranks, averaged in one collective, with a few numbers as passengers."""

    def __init__(self, parameters: list[nn.Parameter], runtime: Runtime) -> None:
        self._parameters, self._runtime = parameters, runtime

    @torch.no_grad()
    def reduce(self, passengers: Tensor) -> Tensor:
        """Averages .grad of every parameter in place and returns the passengers' average, fp32 [P]."""
        if self._runtime.world_size == 1:
            return passengers
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        *means, carried = self._runtime.sum_all([*gradients, passengers])
        torch._foreach_div_([*means, carried], self._runtime.world_size)
        for parameter, mean in zip(self._parameters, means, strict=True):
            parameter.grad = mean
        return carried

    def squared_norm(self) -> Tensor:
        norms = torch._foreach_norm([p.grad for p in self._parameters if p.grad is not None])
        return torch.stack(norms).square().sum()


@dataclass(frozen=True)
class StepRates:
    """Learning-rate factor and momentum of one step."""

    lr_scale: float
    momentum: float


class Optimizer:
    """Muon and AdamW over one model. Every step: gradients, `reduce`, `step`."""

    def __init__(self, model: GPT, config: TrainConfig, runtime: Runtime) -> None:
        self._config = config
        named = dict(model.named_parameters())
        matrices = {n: p for n, p in named.items() if parameter_role(n) == "matrix"}
        self._small = {n: p for n, p in named.items() if n not in matrices}
        self._muon = ParallelMuon(matrices, runtime)
        self._bucket = Bucket(list(self._small.values()), runtime)
        tables = [p for n, p in self._small.items() if parameter_role(n) == "table"]
        others = [p for n, p in self._small.items() if parameter_role(n) != "table"]
        groups = [RateGroup(tables, config.embedding_lr), RateGroup(others, config.scalar_lr)]
        self._adam = AdamW(groups, ADAM_BETAS, config.weight_decay)

    def reduce(self, passengers: Tensor) -> tuple[Tensor, Tensor]:
        """Averages all gradients over ranks. Returns (norm of the whole gradient, the passengers' average)."""
        carried = self._bucket.reduce(passengers)
        return (self._muon.reduce() + self._bucket.squared_norm()).sqrt(), carried

    @torch.no_grad()
    def step(self, norm: Tensor, rates: StepRates) -> None:
        """Clips by the norm and moves every weight. No host synchronisation."""
        clip = clip_factor(norm, self._config.clip_norm)
        matrix_lr = self._config.matrix_lr * rates.lr_scale
        self._muon.step(clip, matrix_lr, rates.momentum, self._config.weight_decay)
        self._adam.step(rates.lr_scale, clip)

    def rates(self, step: int, lr_scale: float) -> StepRates:
        return StepRates(lr_scale, momentum(step, self._config))

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the optimizer by name. A collective: call it on all ranks."""
        state = self._muon.state()
        for name, parameter in self._small.items():
            state.update({f"adam/{key}/{name}": value for key, value in self._adam.state(parameter).items()})
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        self._muon.load(state)
        for name, parameter in self._small.items():
            keys = self._adam.state(parameter)
            self._adam.load(parameter, {key: state[f"adam/{key}/{name}"] for key in keys})


def clip_factor(norm: Tensor, largest: float) -> Tensor:
    """min(1, largest / norm); 1 if largest is 0."""
    if largest <= 0:
        return torch.ones_like(norm)
    return (largest / (norm + 1e-6)).clamp(max=1.0)


def accumulate_gradients(
    model: LossFunction,
    ids_NT: Tensor,
    targets_NT: Tensor,
    microbatch_windows: int,
    total_windows: float,
) -> Tensor:
    """Adds the gradient of (sum of these windows' losses / total_windows) to .grad; returns that sum's value.

    `model` maps (ids, targets) to nats per token; total_windows is a rank's even share of the step.
    """
    loss_sum = torch.zeros((), device=ids_NT.device)
    if not len(ids_NT):
        return loss_sum
    for ids, targets in zip(ids_NT.split(microbatch_windows), targets_NT.split(microbatch_windows), strict=True):
        loss = model(ids, targets).mean() * (len(ids) / total_windows)
        loss.backward()
        loss_sum += loss.detach()
    return loss_sum
