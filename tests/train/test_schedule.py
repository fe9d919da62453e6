"""Schedules are pure: every number here was worked out by hand."""

from __future__ import annotations

import math

import pytest

from pygolf.config import AdaptConfig, TrainConfig
from pygolf.train.schedule import Clock, adapt_lr_scale, block_lr_scale, ema_decay, momentum


def test_momentum_ramps_and_stays() -> None:
    config = TrainConfig(momentum_start=0.9, momentum_end=0.99, momentum_ramp_steps=100)
    assert momentum(0, config) == 0.9
    assert momentum(50, config) == pytest.approx(0.945)
    assert momentum(1000, config) == pytest.approx(0.99)


def test_ema_of_a_short_run_is_an_average_without_bias() -> None:
    assert ema_decay(0, 0.997) == 0.0  # the first step copies
    assert ema_decay(91, 0.997) == pytest.approx(0.91)
    assert ema_decay(10**6, 0.997) == 0.997


def test_discriminative_rates_rise_from_0_3_to_1() -> None:
    config = AdaptConfig()
    assert [block_lr_scale(i, 11, config) for i in (0, 5, 10)] == pytest.approx([0.3, 0.65, 1.0])
    frozen = AdaptConfig(first_block_scale=1.0, frozen_blocks=2)
    assert [block_lr_scale(i, 11, frozen) for i in (0, 1, 2, 10)] == [0.0, 0.0, 1.0, 1.0]
    assert block_lr_scale(0, 1, AdaptConfig(first_block_scale=1.0)) == 1.0


def test_adaptation_ends_at_its_final_scale() -> None:
    config = AdaptConfig(epochs=10, final_lr_scale=0.1)
    assert adapt_lr_scale(0, config) == 1.0
    assert adapt_lr_scale(9, config) == pytest.approx(0.1)
    assert adapt_lr_scale(0, AdaptConfig(epochs=1)) == 1.0


def test_steps_rule_without_a_clock() -> None:
    clock = Clock(TrainConfig(max_seconds=0, max_steps=10, warmdown_steps=4))
    assert [clock.steps_left(s) for s in (0, 9, 10)] == [10, 1, 0]
    assert [clock.lr_scale(s) for s in (0, 6, 8, 9)] == [1.0, 1.0, 0.5, 0.25]


def test_clock_stops_before_the_budget_and_warms_down_at_the_current_speed() -> None:
    clock = Clock(TrainConfig(max_seconds=100, warmdown_steps=50))
    assert clock.steps_left(0) == math.inf  # nothing is known yet
    for step in range(60):
        clock.report(step, float(step))  # a second a step
    assert clock.step_seconds == pytest.approx(1.0)
    assert clock.start_of(60) == pytest.approx(60.0)
    assert clock.steps_left(60) == pytest.approx(40.0)
    assert clock.lr_scale(60) == pytest.approx(0.8)
    assert clock.steps_left(99) == pytest.approx(1.0)  # the last step that fits
    assert clock.steps_left(100) < 1


def test_clock_keeps_the_reserve_and_counts_what_the_device_still_has_to_do() -> None:
    clock = Clock(TrainConfig(max_seconds=100, reserve_seconds=10), queued=1)
    clock.report(0, 0.0)
    clock.report(10, 20.0)
    assert clock.start_of(12) == pytest.approx(20 + 3 * 2.0)
    assert clock.steps_left(12) == pytest.approx((90 - 26) / 2)


def test_a_resumed_run_whose_budget_is_spent_does_not_go_on() -> None:
    clock = Clock(TrainConfig(max_seconds=5))
    clock.report(7, 6.0)
    assert clock.steps_left(7) == 0
