"""Models for tests: every parameter away from its initial value, so that no term of the definition drops out."""

from __future__ import annotations

import torch

from pygolf.config import ModelConfig
from pygolf.model.gpt import GPT, initialize


def random_model(config: ModelConfig, spread: float = 0.3, seed: int = 0) -> GPT:
    """A fresh model plus noise of standard deviation `spread` (fresh ones have zero output matrices)."""
    model = GPT(config)
    initialize(model, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    return model
