"""Sliding-window scoring: plan the windows, run the model, add up nats and bytes.

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

from pygolf.data.tokenizer import TokenBytes
from pygolf.errors import ConfigError, DataError, NumericError
from pygolf.model.gpt import GPT

Hidden = Callable[[Tensor], Tensor]
"""Ids [B, L] -> final states [B, L, D]: model.hidden, or a compiled form of it."""
Progress = Callable[[int, int], None]
"""Called with (targets scored, targets to score) of this rank after every batch."""

_BYTES_CHUNK = 1 << 22  # targets whose bytes are looked up at once: bounds the temporary arrays


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
    """What scoring adds up; sums over ranks are sums of these."""

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


def score_tokens(
    model: GPT,
    tokens: NDArray[np.uint16],
    token_bytes: TokenBytes,
    *,
    stride: int,
    batch_tokens: int,
    rank: int = 0,
    world_size: int = 1,
    progress: Progress | None = None,
    hidden: Hidden | None = None,
) -> ScoreSums:
    """Scores a text with the window that slides by `stride`; a stride of the model's T is plain evaluation.

    Rank r of `world_size` runs the r-th share of the windows, at most `batch_tokens` tokens (or one window) in a
    forward pass; the sums are added over ranks where torch.distributed is initialised, else they are this share's.
    Raises DataError for fewer than 2 tokens or an id outside the vocabulary, ConfigError for a bad stride.
    """
    plan = plan_windows(len(tokens), model.config.sequence_length, stride)
    begin, end = _share(len(plan), rank, world_size)
    first, last = plan.targets(begin, end)
    sums = torch.zeros(3, dtype=torch.float64, device=model.tok_emb.weight.device)
    for nll_Bk, done in _scored_batches(model, tokens, plan, (begin, end), batch_tokens, hidden or model.hidden):
        sums[0] += nll_Bk.sum(dtype=torch.float64)
        if progress is not None:
            progress(done - first, last - first)
    sums[1] = last - first
    sums[2] = _count_bytes(tokens, token_bytes, first, last)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(sums)
    nll, count, byte_count = sums.tolist()
    return ScoreSums(nll, int(count), int(byte_count))


def token_nll(
    model: GPT, tokens: NDArray[np.uint16], *, stride: int, batch_tokens: int, hidden: Hidden | None = None
) -> NDArray[np.float32]:
    """[N - 1] nats of every target in the order of the text, from the same windows as score_tokens."""
    plan = plan_windows(len(tokens), model.config.sequence_length, stride)
    whole = (0, len(plan))
    batches = _scored_batches(model, tokens, plan, whole, batch_tokens, hidden or model.hidden)
    return np.concatenate([nll_Bk.flatten().cpu().numpy() for nll_Bk, _ in batches])


def _scored_batches(
    model: GPT,
    tokens: NDArray[np.uint16],
    plan: WindowPlan,
    share: tuple[int, int],
    batch_tokens: int,
    hidden: Hidden,
) -> Iterator[tuple[Tensor, int]]:
    """Yields the scored nll [B, k] of each batch, in the order of the text, and the target behind its last one."""
    _check_ids(tokens, model.config.vocab_size)
    begin, end = share
    if begin == end:
        return
    device = model.tok_emb.weight.device
    offset = int(plan.starts[begin])
    # This rank's part of the text moves to the device once; windows are cut out there.
    stream = torch.from_numpy(tokens[offset : plan.targets(begin, end)[1] + 1].astype(np.int32)).to(device)
    positions = torch.arange(plan.length + 1, device=device)
    for lo, hi in _batches(plan, share, max(1, batch_tokens // plan.length)):
        starts = torch.from_numpy(plan.starts[lo:hi] - offset).to(device)
        window = stream[starts[:, None] + positions].long()
        k = int(plan.first_scored[lo])
        with torch.no_grad():
            nll_Bk = model.nll(hidden(window[:, :-1])[:, k:], window[:, 1 + k :])
        yield nll_Bk, plan.targets(lo, hi)[1]


def _batches(plan: WindowPlan, share: tuple[int, int], size: int) -> Iterator[tuple[int, int]]:
    """Runs of at most `size` neighbouring windows that score the same positions: few distinct shapes, no padding."""
    begin, end = share
    edges = np.flatnonzero(np.diff(plan.first_scored[begin:end])) + begin + 1
    for lo, hi in pairwise([begin, *edges.tolist(), end]):
        for start in range(lo, hi, size):
            yield start, min(start + size, hi)


def _share(count: int, rank: int, world_size: int) -> tuple[int, int]:
    """The rank's run of `count` things; the runs are in order and differ by at most one in length."""
    return count * rank // world_size, count * (rank + 1) // world_size


def _count_bytes(tokens: NDArray[np.uint16], token_bytes: TokenBytes, first: int, last: int) -> int:
    total = 0
    for start in range(first, last, _BYTES_CHUNK):
        stop = min(start + _BYTES_CHUNK, last)
        total += int(token_bytes.target_bytes(tokens[start:stop], tokens[start + 1 : stop + 1]).sum())
    return total


def _check_ids(tokens: NDArray[np.uint16], vocab_size: int) -> None:
    if int(tokens.max()) >= vocab_size:
        position = int(np.argmax(tokens >= vocab_size))
        raise DataError(
            f"token {position} of the text is {tokens[position]}, expected an id below the model's vocabulary "
            f"{vocab_size}; were the shards made with another tokenizer?"
        )
