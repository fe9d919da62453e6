"""Sampling with the cache equals sampling from full forwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from random_models import random_model

from pygolf.errors import ConfigError, DataError
from pygolf.model.generate import generate, sample_windows
from pygolf.model.gpt import GPT
from pygolf.presets import tiny

T, V = 10, 19


@pytest.fixture(scope="module")
def model() -> GPT:
    return random_model(dataclasses.replace(tiny().model, vocab_size=V, sequence_length=T), 0.3, 11)


def next_logits(model: GPT, context: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model.hidden(torch.tensor([context])))[0, -1]


def greedy_reference(model: GPT, prompt: list[int], count: int, banned: Sequence[int] = ()) -> list[int]:
    """No cache: a full forward for every token over the window that the documented rule gives it."""
    text, begin = list(prompt), 0
    for _ in range(count):
        if len(text) - begin > T:
            begin = len(text) - T // 2
        logits = next_logits(model, text[begin:])
        logits[list(banned)] = -torch.inf
        text.append(int(logits.argmax()))
    return text[len(prompt) :]


@pytest.mark.parametrize("prompt_length", [1, 4, T - 1, T, T + 1, 3 * T])
def test_greedy_equals_full_forwards_past_the_end_of_the_window(model: GPT, prompt_length: int) -> None:
    prompt = [(7 * i + 1) % V for i in range(prompt_length)]
    got = generate(model, prompt, max_new_tokens=4 * T, temperature=0, seed=0, batch=2)
    assert got.dtype == torch.int64
    assert got.tolist() == [greedy_reference(model, prompt, 4 * T)] * 2


def test_banned_ids_never_come(model: GPT) -> None:
    free = greedy_reference(model, [1], 20)
    banned = sorted(set(free))[:2]
    assert generate(model, [1], max_new_tokens=20, temperature=0, seed=0, banned=banned).tolist() == [
        greedy_reference(model, [1], 20, banned)
    ]
    drawn = generate(model, [1], max_new_tokens=200, temperature=5.0, seed=0, batch=4, banned=range(3, V))
    assert set(drawn.flatten().tolist()) == {0, 1, 2}


def test_draws_follow_the_tempered_softmax(model: GPT) -> None:
    draws, temperature = 20_000, 0.8
    got = generate(model, [1, 5, 2], max_new_tokens=1, temperature=temperature, seed=3, batch=draws)
    frequency = torch.bincount(got.flatten(), minlength=V) / draws
    want = torch.softmax(next_logits(model, [1, 5, 2]) / temperature, dim=0)
    # Five standard deviations of a binomial frequency.
    assert torch.all((frequency - want).abs() <= 5 * (want * (1 - want) / draws).sqrt() + 1e-4)


def test_top_k_keeps_the_likeliest(model: GPT) -> None:
    got = generate(model, [1, 5, 2], max_new_tokens=1, temperature=3.0, top_k=3, seed=3, batch=500)
    assert set(got.flatten().tolist()) == set(next_logits(model, [1, 5, 2]).topk(3).indices.tolist())


def test_the_seed_settles_the_text(model: GPT) -> None:
    first, again, other = (
        generate(model, [1], max_new_tokens=30, temperature=1.0, seed=seed, batch=3) for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_windows_of_own_text(model: GPT) -> None:
    windows = sample_windows(model, 7, T, temperature=0.8, seed=1, bos_id=1, batch=3, banned=[0, 3])
    assert windows.shape == (7, T + 1)
    assert windows.dtype == torch.int64
    assert windows[:, 0].eq(1).all()
    assert not torch.isin(windows, torch.tensor([0, 3])).any()
    assert len({tuple(row) for row in windows.tolist()}) == 7
    again = sample_windows(model, 7, T, temperature=0.8, seed=1, bos_id=1, batch=3, banned=[0, 3])
    assert torch.equal(windows, again)


def test_windows_continue_their_own_beginning(model: GPT) -> None:
    """At temperature 0 every window is the greedy text behind BOS."""
    windows = sample_windows(model, 2, T, temperature=0, seed=1, bos_id=1)
    assert windows.tolist() == [[1, *greedy_reference(model, [1], T)]] * 2


def test_bad_settings_are_named(model: GPT) -> None:
    def run(prompt: list[int], **changes: object) -> None:
        generate(model, prompt, **{"max_new_tokens": 1, "temperature": 1.0, "seed": 0} | changes)

    with pytest.raises(DataError, match="the prompt has no tokens"):
        run([])
    with pytest.raises(DataError, match="prompt id 19, expected ids of the model's vocabulary"):
        run([1, 19])
    with pytest.raises(ConfigError, match=r"temperature is -0\.5"):
        run([1], temperature=-0.5)
    with pytest.raises(ConfigError, match="top_k is 0"):
        run([1], top_k=0)
    with pytest.raises(ConfigError, match=r"banned ids \[19\]"):
        run([1], banned=[19])
    with pytest.raises(ConfigError, match="banned ids are the whole vocabulary"):
        run([1], banned=range(V))
    with pytest.raises(ConfigError, match="batch is 0"):
        run([1], batch=0)
