"""What a run reads: tokenizer, training spans, held-out spans and validation tokens, with their digests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pygolf.config import DataConfig, ModelConfig
from pygolf.data.find import find_shards, shard_digests
from pygolf.data.loader import TokenSpan, read_tokens, set_aside, whole_spans
from pygolf.data.tokenizer import Tokenizer
from pygolf.errors import ConfigError, DataError


@dataclass(frozen=True)
class RunData:
    """The tokens of a run by what may be done with them."""

    tokenizer: Tokenizer
    train: list[TokenSpan]
    """For training."""
    holdout: list[TokenSpan]
    """Training tokens that training never reads: for adaptation and calibration."""
    val: list[TokenSpan]
    """For scoring."""
    digests: dict[Path, str]
    """SHA-256 of each shard's token bytes."""


def find_tokenizer(folder: Path, named: Path | None) -> Path:
    """The named SentencePiece model, or the only *.model in the folder. Raises DataError if there is none."""
    if named is not None:
        return named
    models = sorted(folder.glob("*.model"))
    if len(models) != 1:
        raise DataError(
            f"{folder} has {len(models)} SentencePiece models (*.model), expected one; "
            f"name it with --tokenizer (for a run: --data.tokenizer)"
        )
    return models[0]


def open_data(config: DataConfig, model: ModelConfig) -> RunData:
    """Opens and checks everything a run reads, before any work is done.

    Raises DataError, FormatError or IoError for missing or broken shards and ConfigError for a tokenizer whose
    vocabulary is not the model's.
    """
    train = whole_spans(find_shards(config.path, "train"))
    val = limit(whole_spans(find_shards(config.path, "val")), config.val_tokens)
    tokenizer = Tokenizer(find_tokenizer(config.path, config.tokenizer))
    if tokenizer.vocab_size != model.vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size} pieces, but model.vocab_size is {model.vocab_size}; "
            f"set --model.vocab-size {tokenizer.vocab_size} or name another tokenizer"
        )
    kept, held = set_aside(train, config.holdout_windows, model.sequence_length)
    paths = [span.path for span in (*train, *val)]
    return RunData(tokenizer, kept, held, val, dict(zip(paths, shard_digests(paths), strict=True)))


def limit(spans: Sequence[TokenSpan], tokens: int) -> list[TokenSpan]:
    """The first `tokens` tokens of the spans; all of them for 0. Raises DataError if there are fewer."""
    if tokens == 0:
        return list(spans)
    found = sum(span.tokens for span in spans)
    if found < tokens:
        raise DataError(
            f"{tokens} validation tokens were asked for, but the split has {found}; lower the number, or use 0 for all"
        )
    kept = []
    for span in spans:
        taken = min(tokens, span.tokens)
        if taken:
            kept.append(TokenSpan(span.path, span.begin, span.begin + taken))
        tokens -= taken
    return kept


def split_prefix(spans: Sequence[TokenSpan], fraction: float) -> tuple[list[TokenSpan], list[TokenSpan]]:
    """The first `fraction` of the tokens and the rest."""
    total = sum(span.tokens for span in spans)
    first = max(2, int(total * fraction))
    head = limit(spans, first)
    rest = []
    for span in spans:
        taken = sum(s.tokens for s in head if s.path == span.path)
        if taken < span.tokens:
            rest.append(TokenSpan(span.path, span.begin + taken, span.end))
    return head, rest


def join_tokens(spans: Sequence[TokenSpan], vocab_size: int) -> NDArray[np.uint16]:
    """The tokens of all spans, one behind the other."""
    return np.concatenate([read_tokens(span, vocab_size) for span in spans])
