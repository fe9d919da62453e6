"""Score-first adaptation: nothing is learned from before it is scored; the result is that of a plain loop."""

from __future__ import annotations

import copy
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from random_models import random_model

from pygolf.config import ModelConfig, ScoreConfig
from pygolf.model.gpt import GPT
from pygolf.runtime import Runtime
from pygolf.score.score_first import plan_chunks, score_first_nll
from pygolf.score.sliding import plan_windows, token_nll

CPU = Runtime(torch.device("cpu"))
LENGTH, VOCABULARY = 12, 13
CONFIG = ScoreConfig(stride=4, batch_tokens=36, adapt="score-first", chunk_tokens=24, adapt_lr=0.05)


def make_model() -> GPT:
    config = ModelConfig(
        vocab_size=VOCABULARY,
        layers=2,
        width=16,
        heads=2,
        kv_heads=1,
        mlp_width=32,
        sequence_length=LENGTH,
        rotary_dims=4,
        bigram_rows=40,
        bigram_width=8,
        value_embedding_width=8,
        value_embedding_layers=(1,),
    )
    return random_model(config, 0.3, 3)


def make_tokens(count: int) -> NDArray[np.uint16]:
    return np.random.default_rng(count).integers(0, VOCABULARY, count).astype(np.uint16)


@pytest.fixture(scope="module")
def model() -> GPT:
    return make_model()


def plain_loop(model: GPT, tokens: NDArray[np.uint16], config: ScoreConfig) -> NDArray[np.float32]:
    """Scores the whole text with every version of the weights and takes each chunk from its own; SGD by hand."""
    model = copy.deepcopy(model)
    plan = plan_windows(len(tokens), LENGTH, config.stride)
    ends = [plan.targets(*windows)[1] for windows in plan_chunks(plan, config.chunk_tokens)]
    velocity = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    first, losses = 0, []
    for i, end in enumerate(ends):
        losses.append(token_nll(model, tokens, stride=config.stride, batch_tokens=LENGTH)[first:end])
        rate = config.adapt_lr * 0.5 * (1 + math.cos(math.pi * i / len(ends)))
        for _ in range(config.adapt_epochs if end < ends[-1] else 0):
            model.zero_grad()
            total = torch.zeros(())
            for begin in range(first, end, LENGTH):
                window = torch.from_numpy(tokens[begin : min(begin + LENGTH, end) + 1].astype(np.int64))[None]
                total = total + model(window[:, :-1], window[:, 1:]).sum()
            (total / (end - first)).backward()
            norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
            with torch.no_grad():
                for name, p in model.named_parameters():
                    block = int(name.split(".")[1]) if name.startswith("blocks.") else 1
                    scale = config.adapt_first_block_scale + (1 - config.adapt_first_block_scale) * block
                    velocity[name].mul_(config.adapt_momentum).add_(p.grad, alpha=min(1.0, 1 / norm))
                    p.sub_(rate * scale * velocity[name])
        first = end
    return np.concatenate(losses)


@pytest.mark.parametrize(("count", "scale"), [(97, 0.0), (73, 1.0), (20, 1.0), (9, 1.0)])
def test_as_by_a_plain_loop(count: int, scale: float, model: GPT) -> None:
    config = ScoreConfig(**{**vars(CONFIG), "adapt_first_block_scale": scale})
    tokens = make_tokens(count)
    np.testing.assert_allclose(
        score_first_nll(model, tokens, config, CPU), plain_loop(model, tokens, config), rtol=0, atol=2e-4
    )


def test_no_score_depends_on_a_later_token(model: GPT) -> None:
    tokens = make_tokens(90)
    before = score_first_nll(model, tokens, CONFIG, CPU)
    for changed in (25, 26, 48, 89):
        other = tokens.copy()
        other[changed:] = (tokens[changed:] + 1) % VOCABULARY
        after = score_first_nll(model, other, CONFIG, CPU)
        assert np.array_equal(after[: changed - 1], before[: changed - 1])
        assert after[changed - 1] != before[changed - 1]


@pytest.mark.parametrize("at", [25, 40])
def test_no_score_depends_on_its_own_token(at: int, model: GPT) -> None:
    """Whatever stands there, the probabilities of all that could stand there sum to 1; a model that had learned
    from the token before it was scored would give each of them more than its share."""
    total = 0.0
    for token in range(VOCABULARY):
        tokens = make_tokens(56)
        tokens[at] = token
        total += math.exp(-score_first_nll(model, tokens, CONFIG, CPU)[at - 1])
    assert total == pytest.approx(1.0, abs=1e-5)


def test_it_learns_and_gives_the_weights_back(model: GPT) -> None:
    tokens = np.tile(make_tokens(20), 20)
    before = copy.deepcopy(model.state_dict())
    adaptive = score_first_nll(model, tokens, CONFIG, CPU)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    fixed = token_nll(model, tokens, stride=4, batch_tokens=36)
    assert np.array_equal(adaptive[:24], fixed[:24])  # nothing was learned yet
    assert adaptive[200:].mean() < fixed[200:].mean() - 0.3


def test_weights_come_back_after_an_error(model: GPT) -> None:
    before = copy.deepcopy(model.state_dict())

    def interrupted(done: int, total: int) -> None:
        if done > 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_first_nll(model, make_tokens(90), CONFIG, CPU, progress=interrupted)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@dataclass(frozen=True)
class TwoRanks(Runtime):
    """One of two ranks that are threads; sums meet in a box."""

    box: dict[int, torch.Tensor] = field(default_factory=dict)
    barrier_: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=60))

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        self.box[self.rank] = tensor.clone()
        self.barrier_.wait()
        tensor.copy_(self.box[0] + self.box[1])
        self.barrier_.wait()
        return tensor


@pytest.mark.parametrize("count", [97, 20])
def test_two_ranks_give_what_one_gives(count: int, model: GPT) -> None:
    first = TwoRanks(torch.device("cpu"), 0, 2)
    ranks = [first, replace(first, rank=1)]
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda rank: score_first_nll(make_model(), make_tokens(count), CONFIG, rank), ranks))
    one = score_first_nll(model, make_tokens(count), CONFIG, CPU)
    for nll in both:
        np.testing.assert_allclose(nll, one, rtol=0, atol=1e-4)
