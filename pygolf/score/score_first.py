"""Score-first adaptation: the text is scored in chunks, and the model trains on a chunk once it has been scored.

No token's probability depends on itself or on a later token, because the weights that score a chunk were trained on
the chunks before it alone. The model learns from the text that it is scored on, so the result is reported as adaptive,
beside the score of the fixed weights.
Source: legal test-time training of parameter-golf PRs 461 and 549; discriminative rates as in RECIPE 5.
Legend: N tokens of the text, B windows, T positions of a window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pygolf.config import ScoreConfig
from pygolf.data.loader import to_ids
from pygolf.model.gpt import GPT, block_scales, blocks_and_rest
from pygolf.model.graphs import LossFunction, loss_function
from pygolf.runtime import Runtime
from pygolf.score.sliding import Progress, WindowPlan, plan_windows, rank_share, window_nll


def score_first_nll(
    model: GPT,
    tokens: NDArray[np.uint16],
    config: ScoreConfig,
    runtime: Runtime,
    *,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """[N - 1] nats of every target, each under the weights that the chunks before its own have left.

    The model has its weights back afterwards. Any number of ranks gives what one gives, up to rounding.
    """
    plan = plan_windows(len(tokens), model.config.sequence_length, config.stride)
    chunks = list(plan_chunks(plan, config.chunk_tokens))
    nll = torch.zeros(len(tokens) - 1, device=runtime.device)
    with _weights_restored(model):
        session = _Session(model, config, runtime)
        for i, windows in enumerate(chunks):
            mine = _my_windows(windows, runtime)
            first, last = plan.targets(*mine)
            nll[first:last] = window_nll(model, tokens, plan, mine, batch_tokens=config.batch_tokens)
            first, last = plan.targets(*windows)
            if i + 1 < len(chunks):
                rate = config.adapt_lr * 0.5 * (1 + math.cos(math.pi * i / len(chunks)))
                session.train(tokens[first : last + 1], rate)
            if progress is not None:
                progress(last, len(nll))
    return runtime.sum(nll).cpu().numpy()


def plan_chunks(plan: WindowPlan, chunk_tokens: int) -> Iterator[tuple[int, int]]:
    """Windows [begin, end) of each chunk: those whose last target lies in the same `chunk_tokens` targets."""
    chunk_of = (plan.starts + plan.length - 1) // chunk_tokens
    edges = np.flatnonzero(np.diff(chunk_of)) + 1
    yield from zip([0, *edges.tolist()], [*edges.tolist(), len(plan)], strict=True)


def _my_windows(windows: tuple[int, int], runtime: Runtime) -> tuple[int, int]:
    begin, end = rank_share(windows[1] - windows[0], runtime.rank, runtime.world_size)
    return windows[0] + begin, windows[0] + end


@contextmanager
def _weights_restored(model: GPT) -> Iterator[None]:
    before = [p.detach().clone() for p in model.parameters()]
    try:
        yield
    finally:
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), before, strict=True):
                parameter.copy_(value)


class _Session:
    """The model's optimizer: SGD with momentum, which lasts from chunk to chunk."""

    def __init__(self, model: GPT, config: ScoreConfig, runtime: Runtime) -> None:
        self._model, self._config, self._runtime = model, config, runtime
        self._loss = loss_function(model, runtime)
        self._length = model.config.sequence_length
        self._micro_windows = max(1, config.batch_tokens // self._length)
        self._parameters = list(model.parameters())
        self._sgd = torch.optim.SGD(_rate_groups(model, config), lr=config.adapt_lr, momentum=config.adapt_momentum)

    def train(self, tokens: NDArray[np.uint16], rate: float) -> None:
        """Some epochs over a chunk, each one step on all its windows."""
        for group in self._sgd.param_groups:
            group["lr"] = rate * group["scale"]
        for _ in range(self._config.adapt_epochs):
            self._model.zero_grad(set_to_none=True)
            self._accumulate(tokens)
            self._reduce()
            torch.nn.utils.clip_grad_norm_(self._parameters, self._config.adapt_clip_norm)
            self._sgd.step()

    def _accumulate(self, tokens: NDArray[np.uint16]) -> None:
        """Adds this rank's part of the gradient of the chunk's mean loss."""
        targets = len(tokens) - 1
        whole = targets // self._length
        starts = np.arange(self._runtime.rank, whole, self._runtime.world_size) * self._length
        windows = torch.from_numpy(tokens[starts[:, None] + np.arange(self._length + 1)])
        for batch in windows.split(self._micro_windows):
            self._backward(self._loss, batch, targets)
        # What is left behind the last whole window is a shorter one, and the turn of the next rank.
        rest = torch.from_numpy(tokens[whole * self._length :].copy())
        if len(rest) > 1 and whole % self._runtime.world_size == self._runtime.rank:
            self._backward(self._model, rest[None], targets)

    def _backward(self, loss: LossFunction, windows_u16: Tensor, targets: int) -> None:
        if len(windows_u16):
            (loss(*to_ids(windows_u16, self._runtime.device)).sum() / targets).backward()

    def _reduce(self) -> None:
        """Adds the gradients of all ranks."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        for parameter, total in zip(self._parameters, self._runtime.sum_all(gradients), strict=True):
            parameter.grad = total


def _rate_groups(model: GPT, config: ScoreConfig) -> list[dict[str, object]]:
    """One group a block, its rate rising from adapt_first_block_scale to 1, and one for the rest."""
    blocks, rest = blocks_and_rest(model)
    scales = [*block_scales(len(blocks), config.adapt_first_block_scale), 1.0]
    return [{"params": p, "scale": scale} for p, scale in zip([*blocks, rest], scales, strict=True)]
