"""The score of an artifact file: weights from the file, text from shards, and whether the one has seen the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pygolf.config import ScoreConfig
from pygolf.data.tokenizer import Tokenizer
from pygolf.errors import ConfigError, FormatError
from pygolf.model.gpt import GPT
from pygolf.model.load import load_artifact
from pygolf.progress import Reporter
from pygolf.runtime import Runtime
from pygolf.score.provenance import TokenRange, seen_tokens
from pygolf.score.sliding import Hidden, Score, score_tokens


@dataclass(frozen=True)
class Text:
    """Tokens to score: one run of text, the tokenizer that made it and the ranges of the shards it came from."""

    tokens: NDArray[np.uint16]
    tokenizer: Tokenizer
    ranges: Sequence[TokenRange]


@dataclass(frozen=True)
class FileScore:
    """What an artifact file scores."""

    sliding: Score
    plain: Score
    """The same tokens in windows without overlap."""
    seen_tokens: int | None
    """Scored tokens that the weights were fitted to; None if the artifact does not say what it was fitted to."""

    @property
    def seen(self) -> bool | None:
        return None if self.seen_tokens is None else self.seen_tokens > 0

    def to_dict(self) -> dict[str, Any]:
        """The figures under the names of report.json."""
        return {
            "bpb": self.sliding.bpb,
            "bpb_plain": self.plain.bpb,
            "val_loss": self.sliding.val_loss,
            "tokens_scored": self.sliding.tokens_scored,
            "bytes_scored": self.sliding.bytes_scored,
            "seen": self.seen,
            "seen_tokens": self.seen_tokens,
        }


def score_file(path: Path, text: Text, config: ScoreConfig, runtime: Runtime, reporter: Reporter) -> FileScore:
    """Loads the artifact and scores the text, with the sliding window and without overlap.

    Raises IoError or FormatError for a missing or damaged file and ConfigError for a tokenizer that is not the
    artifact's.
    """
    loaded = load_artifact(path, runtime)
    check_tokenizer(path, loaded.manifest, text.tokenizer)
    stride = min(config.stride, loaded.model.config.sequence_length)
    sliding = score_model(loaded.model, text, stride, config.batch_tokens, runtime, reporter)
    plain = score_model(loaded.model, text, 0, config.batch_tokens, runtime, reporter)
    return FileScore(sliding, plain, _seen(path, loaded.manifest, text))


def score_model(model: GPT, text: Text, stride: int, batch_tokens: int, runtime: Runtime, reporter: Reporter) -> Score:
    """Scores a model on the device; stride 0 means windows without overlap."""
    label = "score" if stride else "score (no overlap)"
    length = model.config.sequence_length
    reporter.stage(label, 1)
    sums = score_tokens(
        model,
        text.tokens,
        text.tokenizer.token_bytes(),
        stride=stride or length,
        batch_tokens=batch_tokens,
        rank=runtime.rank,
        world_size=runtime.world_size,
        progress=reporter.advance,
        hidden=_hidden(model, max(1, batch_tokens // length), runtime),
    )
    return sums.score()


def check_tokenizer(path: Path, manifest: dict[str, Any], tokenizer: Tokenizer) -> None:
    """Raises ConfigError if the tokenizer is not the one that the artifact was trained with."""
    expected = manifest["tokenizer"].get("sha256")
    if tokenizer.digest != expected:
        raise ConfigError(
            f"{path} was trained with the tokenizer of digest {str(expected)[:16]}..., but {tokenizer.path} has "
            f"{tokenizer.digest[:16]}...; use the artifact's own tokenizer"
        )


def _seen(path: Path, manifest: dict[str, Any], text: Text) -> int | None:
    records = manifest["provenance"]
    if records is None:
        return None
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise FormatError(f"{path}: the manifest's provenance is not a list of token ranges")
    return seen_tokens([TokenRange.from_dict(r) for r in records], text.ranges)


def _hidden(model: GPT, windows: int, runtime: Runtime) -> Hidden:
    """model.hidden, compiled for full batches; the few others are not worth a compilation of their own."""
    if not runtime.compiled:
        return model.hidden
    compiled = torch.compile(model.hidden, dynamic=False)
    full = (windows, model.config.sequence_length)

    def hidden(ids_BT: Tensor) -> Tensor:
        run = compiled if tuple(ids_BT.shape) == full else model.hidden
        result: Tensor = run(ids_BT)
        return result

    return hidden
