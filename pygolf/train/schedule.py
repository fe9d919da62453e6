"""Pure schedules: learning rate against the clock, momentum, averaging, adaptation. Nothing here touches a device."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from pygolf.config import AdaptConfig, TrainConfig
from pygolf.model.gpt import block_scales

SPEED_STEPS = 32


def momentum(step: int, config: TrainConfig) -> float:
    """Muon's Nesterov momentum: a linear ramp from momentum_start to momentum_end."""
    part = min(1.0, step / max(1, config.momentum_ramp_steps))
    return config.momentum_start + part * (config.momentum_end - config.momentum_start)


def ema_decay(step: int, largest: float) -> float:
    """Decay of the weight average at a step: min(largest, t / (t + 9)). The first step copies the weights, so the
    average has no bias, and it always spans about the last tenth of a short run."""
    return min(largest, step / (step + 9.0))


def adapt_lr_scale(epoch: int, config: AdaptConfig) -> float:
    """Cosine over epochs from 1 to final_lr_scale; constant within an epoch."""
    part = epoch / max(1, config.epochs - 1)
    return config.final_lr_scale + (1 - config.final_lr_scale) * 0.5 * (1 + math.cos(math.pi * part))


def block_lr_scale(block: int, blocks: int, config: AdaptConfig) -> float:
    """Discriminative factor of a block: first_block_scale at block 0, rising linearly to 1 at the last; 0 if frozen."""
    if block < config.frozen_blocks:
        return 0.0
    return block_scales(blocks, config.first_block_scale)[block]


@dataclass
class Clock:
    """The training clock as every rank sees it: the mean of all ranks' readings, known a few steps late.

    `report(step, seconds)` gives the reading taken when a step was started. From the readings so far the clock
    predicts when a step would start on the device, which runs `queued` steps behind the host.
    """

    config: TrainConfig
    queued: int = 0
    readings: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=SPEED_STEPS))

    def report(self, step: int, seconds: float) -> None:
        if self.readings and self.readings[-1][0] == step:
            self.readings.pop()
        self.readings.append((step, seconds))

    @property
    def budget(self) -> float:
        """Seconds that training may use; infinite without a clock."""
        return self.config.max_seconds - self.config.reserve_seconds if self.config.max_seconds else math.inf

    @property
    def step_seconds(self) -> float:
        """Mean seconds of a step over the last readings; 0 while unknown."""
        if len(self.readings) < 2:
            return 0.0
        (first, begin), (last, end) = self.readings[0], self.readings[-1]
        return (end - begin) / (last - first)

    def start_of(self, step: int) -> float:
        """Predicted seconds on the clock at which the device begins a step."""
        if not self.readings:
            return 0.0
        last, seconds = self.readings[-1]
        return seconds + (step - last + self.queued) * self.step_seconds

    def steps_left(self, step: int) -> float:
        """Steps that still fit, the given one included: by the clock, the step limit, or the tighter of both."""
        left = float(self.config.max_steps - step) if self.config.max_steps else math.inf
        if self.config.max_seconds and self.step_seconds > 0:
            left = min(left, (self.budget - self.start_of(step)) / self.step_seconds)
        elif self.config.max_seconds and self.start_of(step) >= self.budget:
            left = 0.0
        return left

    def lr_scale(self, step: int) -> float:
        """1 until warmdown_steps are left, then linear to 0."""
        if self.config.warmdown_steps == 0:
            return 1.0
        return max(0.0, min(1.0, self.steps_left(step) / self.config.warmdown_steps))
