"""Discriminative test-time training before quantization: early blocks move less, late blocks more.

Sources: discriminative fine-tuning, Howard and Ruder, arXiv 1801.06146; parameter-golf PR 1351 (and PR 1306 for flat
rates with frozen blocks, which `first_block_scale=1, frozen_blocks=2` gives).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pygolf.config import AdaptConfig
from pygolf.data.loader import to_ids
from pygolf.errors import ConfigError, DataError, NonFiniteLossError
from pygolf.model.gpt import GPT, blocks_and_rest
from pygolf.model.graphs import loss_function
from pygolf.progress import Reporter
from pygolf.runtime import Runtime
from pygolf.train.adamw import AdamW, RateGroup
from pygolf.train.optimizer import Bucket, accumulate_gradients, clip_factor
from pygolf.train.schedule import adapt_lr_scale, block_lr_scale

ADAM_BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class AdaptResult:
    """The adapted model and the mean training loss of each epoch, nats per token."""

    model: GPT
    epoch_losses: list[float]


def rate_groups(model: GPT, config: AdaptConfig) -> list[RateGroup]:
    """One group a block, holding every parameter of it, and one for the rest."""
    blocks, rest = blocks_and_rest(model)
    scales = [block_lr_scale(i, len(blocks), config) for i in range(len(blocks))]
    groups = [RateGroup(params, config.lr * scale) for params, scale in zip(blocks, scales, strict=True) if scale]
    return [*groups, RateGroup(rest, config.lr)]


def adapt(
    model: GPT,
    windows_u16: Tensor,
    config: AdaptConfig,
    runtime: Runtime,
    *,
    seed: int,
    microbatch_windows: int,
    reporter: Reporter,
) -> AdaptResult:
    """Trains a copy of the model on windows [N, T + 1]; the given model stays as it is.

    Every rank sees the same windows and takes every W-th of each step. Windows beyond the last whole step of an epoch
    wait for another epoch's order. Raises NonFiniteLossError if a loss is not finite.
    """
    if config.windows_per_step % runtime.world_size:
        raise ConfigError(
            f"adapt.windows_per_step {config.windows_per_step} cannot be shared evenly by {runtime.world_size} ranks"
        )
    if not len(windows_u16):
        raise DataError(f"not one window of {model.config.sequence_length} tokens to adapt on; give it more text")
    session = Session(copy.deepcopy(model), config, runtime, microbatch_windows)
    # On the device from the start, so that no step waits for a copy. CUDA cannot index 16-bit unsigned numbers.
    windows_i16 = windows_u16.view(torch.int16).to(runtime.device)
    steps = max(1, len(windows_u16) // config.windows_per_step)
    reporter.stage("adapt", config.epochs * steps)
    losses = []
    for epoch in range(config.epochs):
        order = torch.randperm(len(windows_u16), generator=torch.Generator().manual_seed(seed + epoch))
        order = order.to(runtime.device)
        total = torch.zeros((), device=runtime.device)
        lr_scale = adapt_lr_scale(epoch, config)
        for step, batch in enumerate(order.split(config.windows_per_step)[:steps]):
            total += session.step(windows_i16[batch].view(torch.uint16), lr_scale)
            reporter.advance(epoch * steps + step + 1, config.epochs * steps, f"epoch {epoch + 1}")
        losses.append(_checked(float(total) / steps, epoch))
        note = f"epoch {epoch + 1}  loss {losses[-1]:.4f}"
        reporter.advance((epoch + 1) * steps, config.epochs * steps, note, epoch=epoch, loss=losses[-1])
    return AdaptResult(session.model, losses)


def _checked(loss: float, epoch: int) -> float:
    if not math.isfinite(loss):
        raise NonFiniteLossError(
            f"adaptation's loss is {loss} in epoch {epoch + 1}; the weights before it are kept. Lower adapt.lr"
        )
    return loss


class Session:
    """The model being adapted, its optimizer and its collectives."""

    def __init__(self, model: GPT, config: AdaptConfig, runtime: Runtime, microbatch_windows: int) -> None:
        self.model, self._config, self._runtime = model, config, runtime
        self._micro_windows = microbatch_windows
        self._loss = loss_function(model, runtime)
        groups = rate_groups(model, config)
        self._adam = AdamW(groups, ADAM_BETAS, weight_decay=0.0)
        self._moved = [p for group in groups for p in group.parameters]
        self._bucket = Bucket(self._moved, runtime)

    def step(self, windows_u16: Tensor, lr_scale: float) -> Tensor:
        """One update on the windows of all ranks; returns their mean loss, on the device."""
        mine = windows_u16[self._runtime.rank :: self._runtime.world_size]
        self.model.zero_grad(set_to_none=True)
        share = len(windows_u16) / self._runtime.world_size
        loss = accumulate_gradients(self._loss, *to_ids(mine, self._runtime.device), self._micro_windows, share)
        carried = self._bucket.reduce(loss[None])
        self._adam.step(lr_scale, clip_factor(self._bucket.squared_norm().sqrt(), self._config.clip_norm))
        return carried[0]
