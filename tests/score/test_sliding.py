"""Scoring equals brute force: each token's loss from its own forward over exactly the window that should score it."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from random_models import random_model

from pygolf.errors import ConfigError, DataError, NumericError
from pygolf.model.gpt import GPT
from pygolf.model.tail import TailStates, tail_states
from pygolf.presets import tiny
from pygolf.runtime import Runtime
from pygolf.score import sliding
from pygolf.score.sliding import ScoreSums, plan_windows, rank_share, token_nll, window_nll

LENGTH, VOCAB_SIZE = 12, 29
CASES = [
    (2, 1),
    (5, 4),  # shorter than a window
    (12, 4),
    (13, 4),  # exactly one window
    (14, 4),
    (13 + 4, 4),  # exactly one step more
    (47, 4),
    (48, 5),
    (40, 1),
    (60, 7),
    (49, 12),  # no overlap, 4 whole windows
    (53, 12),
]


def make_model() -> GPT:
    """A small model with every weight away from its initial value."""
    return random_model(dataclasses.replace(tiny().model, vocab_size=VOCAB_SIZE, sequence_length=LENGTH), 0.3, 5)


def make_tokens(count: int) -> NDArray[np.uint16]:
    return np.random.default_rng(count).integers(0, VOCAB_SIZE, count).astype(np.uint16)


@pytest.fixture(scope="module")
def model() -> GPT:
    return make_model()


def brute_force_nll(model: GPT, tokens: NDArray[np.uint16], stride: int) -> NDArray[np.float64]:
    """Target by target, one window at a time, without a plan."""
    targets, losses = len(tokens) - 1, []
    length = min(model.config.sequence_length, targets)
    for target in range(targets):
        end = length
        while end <= target:
            end = min(end + stride, targets)
        window = torch.from_numpy(tokens[end - length : end].astype(np.int64))[None]
        with torch.no_grad():
            logits = model.logits(model.hidden(window))[0, target - (end - length)].double()
        losses.append(-torch.log_softmax(logits, 0)[int(tokens[target + 1])].item())
    return np.array(losses)


@pytest.mark.parametrize(("count", "stride"), CASES)
def test_every_token_as_by_brute_force(model: GPT, count: int, stride: int) -> None:
    tokens = make_tokens(count)
    got = token_nll(model, tokens, stride=stride, batch_tokens=3 * LENGTH)
    np.testing.assert_allclose(got, brute_force_nll(model, tokens, stride), rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, LENGTH, 5 * LENGTH, 10_000])
def test_losses_do_not_depend_on_the_batch(model: GPT, batch_tokens: int) -> None:
    tokens, calls = make_tokens(61), []
    got = token_nll(
        model,
        tokens,
        stride=5,
        batch_tokens=batch_tokens,
        progress=lambda done, total: calls.append((done, total)),
    )
    np.testing.assert_allclose(got, brute_force_nll(model, tokens, 5), rtol=0, atol=1e-5)
    assert calls == sorted(calls)
    assert calls[-1] == (60, 60)


def test_a_later_token_changes_no_earlier_loss(model: GPT) -> None:
    tokens = make_tokens(50)
    before = token_nll(model, tokens, stride=4, batch_tokens=64)
    for changed in (0, 11, 12, 13, 30, 49):
        other = tokens.copy()
        other[changed] = (tokens[changed] + 1) % VOCAB_SIZE
        after = token_nll(model, other, stride=4, batch_tokens=64)
        # Target i is token i + 1, so the first loss that may change is that of the changed token itself.
        assert np.array_equal(after[: max(0, changed - 1)], before[: max(0, changed - 1)])
        assert after[max(0, changed - 1)] != before[max(0, changed - 1)]


@given(count=st.integers(2, 400), length=st.integers(1, 50), data=st.data())
@settings(max_examples=300, deadline=None)
def test_plan_scores_every_target_once(count: int, length: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, length))
    plan = plan_windows(count, length, stride)
    scored = [
        start + position
        for start, first in zip(plan.starts.tolist(), plan.first_scored.tolist(), strict=True)
        for position in range(first, plan.length)
    ]
    assert scored == list(range(count - 1))
    assert plan.starts[0] == 0
    assert plan.starts[-1] + plan.length == count - 1
    # Every later window moves on by the stride and scores that much; the last one may move by less.
    steps, widths = np.diff(plan.starts), plan.length - plan.first_scored
    assert np.array_equal(steps, widths[1:])
    assert np.all(steps[:-1] == stride)
    assert np.all((steps > 0) & (steps <= stride))


def test_plan_by_hand() -> None:
    plan = plan_windows(12, 6, 2)  # 11 targets: windows end at 6, 8, 10, 11
    assert plan.starts.tolist() == [0, 2, 4, 5]
    assert plan.first_scored.tolist() == [0, 4, 4, 5]


def test_bits_per_byte_by_hand() -> None:
    score = ScoreSums(nll=8 * math.log(2), tokens=4, bytes=16).score()
    assert score.bpb == pytest.approx(0.5)
    assert score.val_loss == pytest.approx(2 * math.log(2))
    assert (score.tokens_scored, score.bytes_scored) == (4, 16)


@pytest.mark.parametrize("world_size", [2, 3, 64])
def test_shares_of_all_ranks_are_the_whole(model: GPT, world_size: int) -> None:
    tokens = make_tokens(100)
    plan = plan_windows(len(tokens), LENGTH, 4)
    shares = [rank_share(len(plan), rank, world_size) for rank in range(world_size)]
    parts = [window_nll(model, tokens, plan, share, batch_tokens=48).numpy() for share in shares]
    one = token_nll(model, tokens, stride=4, batch_tokens=48)
    np.testing.assert_allclose(np.concatenate(parts), one, rtol=0, atol=1e-6)
    assert max(map(len, parts)) < len(one)


def _score_as_rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    runtime = Runtime(torch.device("cpu"), rank, 2)
    np.save(
        folder / f"rank{rank}.npy",
        token_nll(make_model(), make_tokens(90), stride=4, batch_tokens=48, runtime=runtime),
    )
    torch.distributed.destroy_process_group()


def test_two_processes_score_as_one(model: GPT, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_score_as_rank, args=(rank, tmp_path)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    one = token_nll(model, make_tokens(90), stride=4, batch_tokens=48)
    for rank in range(2):
        np.testing.assert_allclose(np.load(tmp_path / f"rank{rank}.npy"), one, rtol=0, atol=1e-6)


def test_batches_have_few_shapes_and_ask_for_scored_positions_only(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def watched(model: GPT) -> TailStates:
        def states(ids: torch.Tensor, scored: int) -> torch.Tensor:
            asked.append((*ids.shape, scored))
            return tail_states(model)(ids, scored)

        return states

    monkeypatch.setattr(sliding, "tail_states", watched)
    token_nll(model, make_tokens(13 + 9 * 4 + 2), stride=4, batch_tokens=4 * LENGTH)
    # The first window, nine steps in batches of at most four, the last short step.
    assert asked == [(1, 12, 12), (4, 12, 4), (4, 12, 4), (1, 12, 4), (1, 12, 2)]


def test_bad_input_is_named(model: GPT) -> None:
    with pytest.raises(DataError, match="1 tokens to score, expected 2 or more"):
        token_nll(model, make_tokens(1), stride=4, batch_tokens=48)
    with pytest.raises(ConfigError, match="stride is 13; use 1 to the window length 12"):
        token_nll(model, make_tokens(20), stride=13, batch_tokens=48)
    tokens = make_tokens(20)
    tokens[7] = VOCAB_SIZE
    with pytest.raises(DataError, match="token 7 of the text is 29, expected an id below the model's vocabulary 29"):
        token_nll(model, tokens, stride=4, batch_tokens=48)
    with pytest.raises(NumericError, match="the loss of 3 scored tokens is nan"):
        ScoreSums(math.nan, 3, 9).score()
    with pytest.raises(DataError, match="hold 0 bytes"):
        ScoreSums(1.0, 3, 0).score()
