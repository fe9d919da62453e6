"""Training batches and fixed windows of tokens as tensors. The plan and the prefetching are C++ (`pygolf._core`).

Shapes: G windows of a step over all ranks, N of them on this rank, T positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pygolf._core import TokenLoader, TokenShard
from pygolf.errors import DataError
from pygolf.runtime import Runtime

BUFFERS = 4


@dataclass(frozen=True)
class TokenSpan:
    """Tokens [begin, end) of a shard file."""

    path: Path
    begin: int
    end: int

    @property
    def tokens(self) -> int:
        return self.end - self.begin


def whole_spans(paths: Sequence[Path]) -> list[TokenSpan]:
    """Every shard from its first to its last token. Raises FormatError for a bad shard."""
    return [TokenSpan(path, 0, TokenShard(str(path)).token_count) for path in paths]


def set_aside(spans: Sequence[TokenSpan], windows: int, length: int) -> tuple[list[TokenSpan], list[TokenSpan]]:
    """Splits off `windows` windows of `length` targets, an even share from the end of every shard.

    Returns (spans to train on, held-out spans). Raises DataError if a shard is too short for its share.
    """
    kept: list[TokenSpan] = []
    held: list[TokenSpan] = []
    for i, span in enumerate(spans):
        share = windows * (i + 1) // len(spans) - windows * i // len(spans)
        cut = span.end - (share * length + 1 if share else 0)
        if cut - span.begin < length + 1:
            raise DataError(
                f"{span.path} has {span.tokens} tokens; holding out {share} windows of {length} leaves less than "
                f"one window to train on. Lower data.holdout_windows or use more training data"
            )
        kept.append(TokenSpan(span.path, span.begin, cut))
        if share:
            held.append(TokenSpan(span.path, cut, span.end))
    return kept, held


def windows_in(span: TokenSpan, length: int) -> int:
    """Windows of `length` targets that fit; neighbours share one token, the last target and next first input."""
    return max(0, (span.tokens - 1) // length)


def take_windows(spans: Sequence[TokenSpan], length: int, first: int, count: int) -> list[TokenSpan]:
    """The spans of windows [first, first + count) of those that lie in `spans`, in order."""
    taken = []
    for span in spans:
        here = windows_in(span, length)
        begin, end = min(first, here), min(first + count, here)
        if end > begin:
            taken.append(TokenSpan(span.path, span.begin + begin * length, span.begin + end * length + 1))
        count -= end - begin
        first = max(0, first - here)
    return taken


def read_windows(spans: Sequence[TokenSpan], length: int, vocab_size: int) -> Tensor:
    """All whole windows of the spans, uint16 [N, length + 1]."""
    parts = [np.empty((0, length + 1), dtype=np.uint16)]
    for span in spans:
        tokens, count = read_tokens(span, vocab_size), windows_in(span, length)
        parts.append(np.stack([tokens[i * length : (i + 1) * length + 1] for i in range(count)]))
    return torch.from_numpy(np.concatenate(parts))


def read_tokens(span: TokenSpan, vocab_size: int) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    """A copy of the tokens of a span. Raises DataError for an id outside the vocabulary."""
    tokens = np.array(TokenShard(str(span.path)).tokens[span.begin : span.end])
    if tokens.size and int(tokens.max()) >= vocab_size:
        position = int(np.argmax(tokens >= vocab_size))
        raise DataError(
            f"{span.path}: token {span.begin + position} is {tokens[position]}, but the vocabulary has {vocab_size} "
            f"pieces; the shards were made with another tokenizer"
        )
    return tokens


def to_ids(windows_u16: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Inputs and targets, int64 [N, T] each on the device, of uint16 windows [N, T + 1]."""
    moved = windows_u16.view(torch.int16).to(device, non_blocking=True)
    ids = moved.to(torch.int64) & 0xFFFF
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


class BatchLoader:
    """Batches of the coprime-stride plan, copied to the device while the next ones are read.

    `state()` after a batch continues with the batch behind it, on any number of ranks.
    """

    def __init__(
        self,
        spans: Sequence[TokenSpan],
        runtime: Runtime,
        *,
        seed: int,
        length: int,
        windows: int,
        vocab_size: int,
        mixing_ranks: int,
        state: list[int] | None = None,
    ) -> None:
        self._device = runtime.device
        pin = runtime.device.type == "cuda"
        local = windows // runtime.world_size
        self._buffers = [torch.empty(local, length + 1, dtype=torch.uint16, pin_memory=pin) for _ in range(BUFFERS)]
        self._loader = TokenLoader(
            [(str(s.path), s.begin, s.end) for s in spans],
            seed=seed,
            sequence_length=length,
            windows_per_batch=windows,
            rank=runtime.rank,
            world_size=runtime.world_size,
            vocab_size=vocab_size,
            buffers=[b.numpy() for b in self._buffers],
            mixing_ranks=mixing_ranks,
            state=state,
        )
        self._in_copy: list[tuple[int, torch.cuda.Event]] = []

    def next(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets of this rank's next windows, int64 [N, T] each."""
        index = self._loader.next()
        batch = to_ids(self._buffers[index], self._device)
        self._release_later(index)
        return batch

    def _release_later(self, index: int) -> None:
        """A buffer goes back to the prefetch thread once its copy to the device is over."""
        if self._device.type != "cuda":
            self._loader.release(index)
            return
        event = torch.cuda.Event()
        event.record()
        self._in_copy.append((index, event))
        while len(self._in_copy) > 1:
            oldest, copied = self._in_copy.pop(0)
            copied.synchronize()
            self._loader.release(oldest)

    def state(self) -> list[int]:
        """The plan behind the last batch that next() returned."""
        return list(self._loader.state())

    @property
    def wait_seconds(self) -> float:
        """Seconds that next() has waited for the prefetch thread."""
        return float(self._loader.wait_seconds)

    def close(self) -> None:
        self._loader.close()
