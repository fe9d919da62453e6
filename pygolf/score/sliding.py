"""Sliding-window scoring: plan the windows and run the model.

    bits per byte = sum of nll in nats / (ln 2 · sum of the bytes of the scored tokens)

Position p of a text predicts token p + 1, so N tokens have N - 1 targets and target i is token i + 1. Every target
is scored exactly once, and no probability depends on a later token.
Shapes: W windows, B windows of a batch, L positions of a window, k scored positions of a window, D model width.
Source: strided evaluation as in parameter-golf PRs 549 and 1351, without their repeated last tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pygolf.errors import ConfigError, DataError, NumericError
from pygolf.model.gpt import GPT
from pygolf.model.tail import tail_states
from pygolf.runtime import Runtime

Progress = Callable[[int, int], None]
"""Called with (targets scored, targets to score) of this rank after every batch."""


@dataclass(frozen=True)
class WindowPlan:
    """Windows of equal length: window w reads tokens starts[w] .. starts[w] + length and scores its positions
    first_scored[w] .. length - 1."""

    length: int
    """L: positions of every window."""
    starts: NDArray[np.int64]
    """[W] first token of each window."""
    first_scored: NDArray[np.int64]
    """[W] first scored position of each window; those before it are context only."""

    def __len__(self) -> int:
        return len(self.starts)

    def targets(self, begin: int, end: int) -> tuple[int, int]:
        """The targets [first, last) that windows [begin, end) score: always one unbroken run."""
        if begin == end:
            return 0, 0
        first = int(self.starts[begin] + self.first_scored[begin])
        return first, int(self.starts[end - 1]) + self.length


@dataclass(frozen=True)
class ScoreSums:
    """What scoring adds up."""

    nll: float
    """Negative log-likelihood of all scored tokens, in nats."""
    tokens: int
    """Scored tokens."""
    bytes: int
    """UTF-8 bytes of the scored tokens."""

    def score(self) -> Score:
        """The means. Raises NumericError for a loss that is not finite and DataError for a text without bytes."""
        if not math.isfinite(self.nll):
            raise NumericError(
                f"the loss of {self.tokens} scored tokens is {self.nll}, expected a finite number; "
                "do the model's weights hold NaN or infinity?"
            )
        if self.bytes <= 0:
            raise DataError(
                f"{self.tokens} scored tokens hold {self.bytes} bytes of text, expected at least one; "
                "is this the tokenizer that made the shards?"
            )
        bpb = self.nll / (math.log(2) * self.bytes)
        return Score(self.nll / self.tokens, bpb, self.tokens, self.bytes)


@dataclass(frozen=True)
class Score:
    """The result of scoring a text."""

    val_loss: float
    """Mean negative log-likelihood in nats a token."""
    bpb: float
    """Bits per UTF-8 byte."""
    tokens_scored: int
    bytes_scored: int


def plan_windows(tokens: int, length: int, stride: int) -> WindowPlan:
    """Windows that score each of the tokens - 1 targets once.

    The first window scores all its positions, each later one moves on by `stride` and scores its last `stride`.
    The last window ends at the last target and keeps its full length, so it moves by less when the text does not
    divide evenly: its targets get as much context as there is. A text shorter than a window is one shorter window.
    Raises DataError for a text without a target and ConfigError for a stride outside 1 .. length.
    """
    if tokens < 2:
        raise DataError(f"{tokens} tokens to score, expected 2 or more: the first token is only context")
    if not 1 <= stride <= length:
        raise ConfigError(f"score stride is {stride}; use 1 to the window length {length}")
    targets = tokens - 1
    length = min(length, targets)
    ends = np.append(np.arange(length, targets, stride, dtype=np.int64), targets)
    return WindowPlan(length, ends - length, length - np.diff(ends, prepend=0))


def token_nll(
    model: GPT,
    tokens: NDArray[np.uint16],
    *,
    stride: int,
    batch_tokens: int,
    runtime: Runtime | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """[N - 1] nats of every target, by the window that slides by `stride`; a stride of the model's T: no overlap.

    Every rank runs its share of the windows, at most `batch_tokens` tokens (or one window) in a forward pass, and
    gets the whole. Raises DataError for fewer than 2 tokens or an id outside the vocabulary, ConfigError for a bad
    stride.
    """
    plan = plan_windows(len(tokens), model.config.sequence_length, stride)
    rank, world_size = (runtime.rank, runtime.world_size) if runtime else (0, 1)
    mine = rank_share(len(plan), rank, world_size)
    first, last = plan.targets(*mine)
    nll = torch.zeros(len(tokens) - 1, device=model.tok_emb.weight.device)
    nll[first:last] = window_nll(model, tokens, plan, mine, batch_tokens=batch_tokens, progress=progress)
    if runtime is not None:
        runtime.sum(nll)  # exact: each rank adds its share to the zeros of the others
    return nll.cpu().numpy()


def window_nll(
    model: GPT,
    tokens: NDArray[np.uint16],
    plan: WindowPlan,
    windows: tuple[int, int],
    *,
    batch_tokens: int,
    progress: Progress | None = None,
) -> Tensor:
    """Nats of the targets that windows [begin, end) of the plan score, fp32, on the device, in the order of the text.

    Reads the weights as they are at the call: score-first adaptation changes them between two calls.
    """
    first, last = plan.targets(*windows)
    parts = [torch.empty(0, device=model.tok_emb.weight.device)]
    for nll_Bk, done in _scored_batches(model, tokens, plan, windows, batch_tokens):
        parts.append(nll_Bk.flatten())
        if progress is not None:
            progress(done - first, last - first)
    return torch.cat(parts)


def _scored_batches(
    model: GPT,
    tokens: NDArray[np.uint16],
    plan: WindowPlan,
    share: tuple[int, int],
    batch_tokens: int,
) -> Iterator[tuple[Tensor, int]]:
    """Yields the scored nll [B, k] of each batch, in the order of the text, and the target behind its last one."""
    begin, end = share
    if begin == end:
        return
    device = model.tok_emb.weight.device
    offset = int(plan.starts[begin])
    # This rank's part of the text moves to the device once; windows are cut out there.
    part = tokens[offset : plan.targets(begin, end)[1] + 1]
    _check_ids(part, offset, model.config.vocab_size)
    stream = torch.from_numpy(part.astype(np.int32)).to(device)
    starts = torch.from_numpy(plan.starts[begin:end] - offset).to(device)
    positions = torch.arange(plan.length + 1, device=device)
    states = tail_states(model)
    for lo, hi in _batches(plan, share, max(1, batch_tokens // plan.length)):
        window = stream[starts[lo - begin : hi - begin, None] + positions].long()
        scored = plan.length - int(plan.first_scored[lo])
        with torch.no_grad():
            # The head in fp32: bf16 logits would be the largest error of all, and there are few positions.
            nll_Bk = model.nll(states(window[:, :-1], scored).float(), window[:, -scored:])
        yield nll_Bk, plan.targets(lo, hi)[1]


def _batches(plan: WindowPlan, share: tuple[int, int], size: int) -> Iterator[tuple[int, int]]:
    """Runs of at most `size` neighbouring windows that score the same positions: few distinct shapes, no padding."""
    begin, end = share
    edges = np.flatnonzero(np.diff(plan.first_scored[begin:end])) + begin + 1
    for lo, hi in pairwise([begin, *edges.tolist(), end]):
        for start in range(lo, hi, size):
            yield start, min(start + size, hi)


def rank_share(count: int, rank: int, world_size: int) -> tuple[int, int]:
    """The rank's run of `count` things; the runs are in order and differ by at most one in length."""
    return count * rank // world_size, count * (rank + 1) // world_size


def _check_ids(tokens: NDArray[np.uint16], offset: int, vocab_size: int) -> None:
    if int(tokens.max()) >= vocab_size:
        position = int(np.argmax(tokens >= vocab_size))
        raise DataError(
            f"token {offset + position} of the text is {tokens[position]}, expected an id below the model's vocabulary "
            f"{vocab_size}; were the shards made with another tokenizer?"
        )
