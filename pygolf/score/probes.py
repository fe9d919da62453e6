"""Experiments that a rule-abiding score must pass: flip tokens, sum probabilities, score a part again.

They use the states and losses that scoring uses where the model lies, fused kernels on CUDA included.

Legend: B windows, L positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pygolf.config import ScoreConfig
from pygolf.model.gpt import GPT
from pygolf.model.tail import tail_states
from pygolf.runtime import Runtime
from pygolf.score.documents import BLOCK_TARGETS, block_sums
from pygolf.score.score_first import score_first_nll
from pygolf.score.sliding import plan_windows, window_nll

PROBED_WINDOWS = 4
PROBED_POSITIONS = 8
RESCORED_WINDOWS = 16
_SEED = 20240520


def causality_gap(model: GPT, tokens: NDArray[np.uint16]) -> float:
    """Largest change of an earlier log-probability, in nats, when all tokens behind it are replaced."""
    rng = np.random.default_rng(_SEED)
    gap = 0.0
    for window in _sample_windows(model, tokens, rng):
        cut = int(rng.integers(1, len(window)))
        flipped = window.copy()
        flipped[cut:] = _others(window[cut:], model.config.vocab_size, rng)
        # The states of all positions, and of a part of them as the sliding window takes it.
        for scored in (len(window), len(window) - cut // 2):
            earlier = cut - (len(window) - scored)
            before, after = (_log_probabilities(model, ids, scored)[:earlier] for ids in (window, flipped))
            gap = max(gap, float((before - after).abs().max()))
    return gap


def normalisation_gap(model: GPT, tokens: NDArray[np.uint16]) -> float:
    """Largest |sum of p - 1| over sampled positions, with p from the loss that scoring uses, for all V targets."""
    rng = np.random.default_rng(_SEED)
    vocabulary = model.config.vocab_size
    gap = 0.0
    for window in _sample_windows(model, tokens, rng):
        positions = torch.from_numpy(rng.integers(0, len(window), PROBED_POSITIONS))
        with torch.no_grad():
            hidden = tail_states(model)(_ids(model, window), len(window))[0, positions]
            targets = torch.arange(vocabulary, device=hidden.device)[:, None].expand(-1, PROBED_POSITIONS)
            nll = model.nll(hidden.expand(vocabulary, -1, -1), targets)
        gap = max(gap, float(((-nll.double()).exp().sum(dim=0) - 1).abs().max()))
    return gap


def score_first_gap(model: GPT, tokens: NDArray[np.uint16], config: ScoreConfig, runtime: Runtime) -> float:
    """Largest change of a loss, in nats, when tokens behind it are replaced, under score-first adaptation.

    The text is the first three windows' worth in chunks of one, so that two chunks are trained on.
    """
    length = model.config.sequence_length
    part = tokens[: 3 * length + 1]
    small = replace(config, chunk_tokens=length, stride=max(1, length // 4))
    cut = 2 * length + length // 2
    flipped = part.copy()
    flipped[cut:] = _others(part[cut:], model.config.vocab_size, np.random.default_rng(_SEED))
    before, after = (score_first_nll(model, text, small, runtime) for text in (part, flipped))
    return float(np.abs(before - after)[: cut - 1].max(initial=0.0))


def rescore(model: GPT, tokens: NDArray[np.uint16], config: ScoreConfig) -> dict[int, float]:
    """Block -> nats of its targets, for the first windows of the sliding score and as many from another place."""
    plan = plan_windows(len(tokens), model.config.sequence_length, min(config.stride, model.config.sequence_length))
    place = int(np.random.default_rng(_SEED).integers(0, max(1, len(plan) - RESCORED_WINDOWS)))
    found: dict[int, float] = {}
    for begin in (0, place):
        windows = (begin, min(begin + RESCORED_WINDOWS, len(plan)))
        first, last = plan.targets(*windows)
        nll = window_nll(model, tokens, plan, windows, batch_tokens=config.batch_tokens).cpu().numpy()
        block = -(-first // BLOCK_TARGETS)
        whole = nll[block * BLOCK_TARGETS - first :]
        if last < len(tokens) - 1:
            whole = whole[: len(whole) // BLOCK_TARGETS * BLOCK_TARGETS]
        found |= dict(enumerate(block_sums(whole).tolist(), block))
    return found


def _sample_windows(model: GPT, tokens: NDArray[np.uint16], rng: np.random.Generator) -> list[NDArray[np.uint16]]:
    length = min(model.config.sequence_length, len(tokens))
    return [tokens[at : at + length] for at in rng.integers(0, len(tokens) - length + 1, PROBED_WINDOWS).tolist()]


def _others(tokens: NDArray[np.uint16], vocabulary: int, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Tokens that all differ from the given ones."""
    steps = rng.integers(1, vocabulary, len(tokens))
    return ((tokens + steps) % vocabulary).astype(np.uint16)


def _ids(model: GPT, window: NDArray[np.uint16]) -> Tensor:
    return torch.from_numpy(window.astype(np.int64))[None].to(model.tok_emb.weight.device)


def _log_probabilities(model: GPT, window: NDArray[np.uint16], scored: int) -> Tensor:
    """[S, V] of the last S positions, float64."""
    with torch.no_grad():
        logits = model.logits(tail_states(model)(_ids(model, window), scored))[0]
    return torch.log_softmax(logits.double(), dim=-1)
