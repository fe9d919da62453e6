"""Adaptation: rates reach every matrix of a block, the input model stays, ranks share the work."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pygolf.config import AdaptConfig
from pygolf.errors import ConfigError, DataError, NonFiniteLossError
from pygolf.model.gpt import GPT
from pygolf.progress import Reporter
from pygolf.runtime import Runtime
from pygolf.train.adapt import AdaptResult, adapt, rate_groups


def adapted(model: GPT, windows: Tensor, config: AdaptConfig, runtime: Runtime) -> AdaptResult:
    return adapt(model, windows, config, runtime, seed=0, microbatch_windows=8, reporter=Reporter(enabled=False))


def changes(before: GPT, after: GPT) -> dict[str, float]:
    """Mean absolute change of every parameter."""
    old = dict(before.named_parameters())
    return {name: float((p - old[name]).detach().abs().mean()) for name, p in after.named_parameters()}


def test_one_step_moves_each_block_by_its_rate(small_model: GPT, windows: Tensor, cpu: Runtime) -> None:
    config = AdaptConfig(epochs=1, lr=1e-5, windows_per_step=24)
    moved = changes(small_model, adapted(small_model, windows, config, cpu).model)
    # AdamW's first step moves every weight that has a gradient by its learning rate.
    for block, scale in enumerate([0.3, 0.3 + 0.7 / 3, 0.3 + 1.4 / 3, 1.0]):
        for matrix in ("attn.q", "attn.k", "attn.v", "attn.out", "mlp.up", "mlp.down"):
            assert moved[f"blocks.{block}.{matrix}.weight"] == pytest.approx(scale * 1e-5, rel=0.03), (block, matrix)
    assert moved["tok_emb.weight"] == pytest.approx(1e-5, rel=0.03)


def test_frozen_blocks_stay_and_flat_rates_are_flat(small_model: GPT, windows: Tensor, cpu: Runtime) -> None:
    config = AdaptConfig(epochs=1, lr=1e-5, windows_per_step=24, first_block_scale=1.0, frozen_blocks=2)
    moved = changes(small_model, adapted(small_model, windows, config, cpu).model)
    assert all(change == 0 for name, change in moved.items() if name.startswith(("blocks.0.", "blocks.1.")))
    assert moved["blocks.2.mlp.up.weight"] == pytest.approx(1e-5, rel=0.03)


def test_every_parameter_is_in_exactly_one_group(small_model: GPT) -> None:
    listed = [id(p) for group in rate_groups(small_model, AdaptConfig()) for p in group.parameters]
    assert sorted(listed) == sorted(id(p) for p in small_model.parameters())


def test_input_model_is_unchanged_and_the_loss_falls(small_model: GPT, windows: Tensor, cpu: Runtime) -> None:
    before = {name: p.clone() for name, p in small_model.state_dict().items()}
    result = adapted(small_model, windows, AdaptConfig(epochs=4, lr=3e-3, windows_per_step=8), cpu)
    assert all(torch.equal(p, before[name]) for name, p in small_model.state_dict().items())
    assert result.epoch_losses[-1] < result.epoch_losses[0] - 0.1


def test_same_seed_same_bits(small_model: GPT, windows: Tensor, cpu: Runtime) -> None:
    config = AdaptConfig(epochs=2, windows_per_step=8)
    first, second = (adapted(small_model, windows, config, cpu).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_nan_is_an_error(small_model: GPT, windows: Tensor, cpu: Runtime) -> None:
    with torch.no_grad():
        small_model.blocks[0].mlp.up.weight[0, 0] = torch.nan
    with pytest.raises(NonFiniteLossError, match=r"epoch 1.*Lower adapt\.lr"):
        adapted(small_model, windows, AdaptConfig(epochs=1, windows_per_step=8), cpu)


def test_no_window_is_an_error(small_model: GPT, windows: Tensor, cpu: Runtime) -> None:
    with pytest.raises(DataError, match="not one window of 16 tokens"):
        adapted(small_model, windows[:0], AdaptConfig(), cpu)


def test_ranks_must_share_a_step_evenly(small_model: GPT, windows: Tensor) -> None:
    runtime = Runtime(torch.device("cpu"), rank=0, world_size=3)
    with pytest.raises(ConfigError, match=r"windows_per_step 8 .* 3 ranks"):
        adapted(small_model, windows, AdaptConfig(windows_per_step=8), runtime)
