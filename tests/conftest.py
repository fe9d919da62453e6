"""Shared fixtures: a small data folder, a small model, and the rule for GPU tests."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pygolf.config import ModelConfig
from pygolf.model.gpt import GPT, initialize
from pygolf.runtime import Runtime

ROOT = Path(__file__).parent.parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if torch.cuda.is_available() or os.environ.get("PYGOLF_REQUIRE_GPU") == "1":
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def cpu() -> Runtime:
    return Runtime(torch.device("cpu"))


@pytest.fixture
def small_config() -> ModelConfig:
    return ModelConfig(
        vocab_size=48,
        layers=4,
        width=32,
        heads=4,
        kv_heads=2,
        mlp_width=64,
        sequence_length=16,
        rotary_dims=4,
        bigram_rows=40,
        bigram_width=8,
        value_embedding_width=8,
        value_embedding_layers=(2, 3),
    )


@pytest.fixture
def small_model(small_config: ModelConfig) -> GPT:
    """A model whose every parameter takes part (fresh ones have zero output matrices)."""
    model = GPT(small_config)
    initialize(model, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def windows() -> torch.Tensor:
    """Token windows with structure to learn, uint16 [24, 17]: each id is followed by its double or by itself plus 1."""
    rng = np.random.default_rng(0)
    rows = np.empty((24, 17), dtype=np.uint16)
    rows[:, 0] = rng.integers(0, 48, 24)
    for i in range(1, 17):
        coin = rng.random(24) < 0.5
        rows[:, i] = np.where(coin, rows[:, i - 1] * 2, rows[:, i - 1] + 1) % 48
    return torch.from_numpy(rows)
