"""The score of an artifact file: weights from the file, text from shards, nats of every single token."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pygolf.config import RunConfig, ScoreConfig
from pygolf.data.splits import RunData, join_tokens, split_prefix
from pygolf.data.tokenizer import Tokenizer
from pygolf.errors import ConfigError
from pygolf.model.gpt import GPT
from pygolf.model.load import load_artifact
from pygolf.progress import Reporter
from pygolf.runtime import Runtime
from pygolf.score.provenance import TokenRange, token_ranges
from pygolf.score.score_first import plan_chunks, score_first_nll
from pygolf.score.sliding import Score, ScoreSums, plan_windows, token_nll

_BYTES_CHUNK = 1 << 22  # targets whose bytes are looked up at once: bounds the temporary arrays


@dataclass(frozen=True)
class Text:
    """Tokens to score: one run of text, the tokenizer that made it and the ranges of the shards it came from."""

    tokens: NDArray[np.uint16]
    tokenizer: Tokenizer
    ranges: Sequence[TokenRange]

    @cached_property
    def target_bytes(self) -> NDArray[np.int16]:
        """[N - 1] UTF-8 bytes of every target."""
        table, count = self.tokenizer.token_bytes(), len(self.tokens) - 1
        found = np.empty(max(0, count), dtype=np.int16)
        for begin in range(0, count, _BYTES_CHUNK):
            end = min(begin + _BYTES_CHUNK, count)
            found[begin:end] = table.target_bytes(self.tokens[begin:end], self.tokens[begin + 1 : end + 1])
        return found

    def score(self, nll: NDArray[np.float32]) -> Score:
        """Means of the nats [N - 1] of all targets."""
        byte_count = int(self.target_bytes.sum(dtype=np.int64))
        return ScoreSums(float(nll.sum(dtype=np.float64)), len(nll), byte_count).score()


def read_text(config: RunConfig, data: RunData) -> Text:
    """What a run scores: the validation tokens; under val-prefix, those that adaptation did not read."""
    spans = data.val
    if config.adapt.source == "val-prefix":
        spans = split_prefix(spans, config.adapt.val_fraction)[1]
    ranges = token_ranges("score", "val", spans, data.digests)
    return Text(join_tokens(spans, config.model.vocab_size), data.tokenizer, ranges)


@dataclass(frozen=True)
class FileScore:
    """What an artifact file scores."""

    sliding: Score
    plain: Score
    """The same tokens in windows without overlap."""
    adaptive: Score | None
    """The same tokens under score-first adaptation, if it was asked for."""
    chunks: int
    """Chunks of the adaptation; 0 without one."""
    losses: dict[str, NDArray[np.float32]]
    """nll (sliding), nll_plain and, if there is one, nll_adaptive -> nats of every target [N - 1]."""
    seconds: dict[str, float]
    """score (with loading the file), score_plain and score_adaptive."""
    manifest: dict[str, Any]
    """The artifact's manifest."""

    def to_dict(self) -> dict[str, Any]:
        """The figures under the names of report.json."""
        return {
            "bpb": self.sliding.bpb,
            "bpb_plain": self.plain.bpb,
            "val_loss": self.sliding.val_loss,
            "tokens_scored": self.sliding.tokens_scored,
            "bytes_scored": self.sliding.bytes_scored,
        }


def score_file(path: Path, text: Text, config: ScoreConfig, runtime: Runtime, reporter: Reporter) -> FileScore:
    """Loads the artifact and scores the text: sliding window, no overlap and, if asked for, score-first.

    Raises IoError or FormatError for a missing or damaged file and ConfigError for a tokenizer that is not the
    artifact's.
    """
    watch = _Watch(runtime)
    loaded = load_artifact(path, runtime)
    check_tokenizer(path, loaded.manifest, text.tokenizer)
    model, length = loaded.model, loaded.model.config.sequence_length
    config = replace(config, stride=min(config.stride, length))
    losses = {"nll": text_nll(model, text, config.stride, config.batch_tokens, runtime, reporter)}
    seconds = {"score": watch.lap()}
    losses["nll_plain"] = text_nll(model, text, 0, config.batch_tokens, runtime, reporter)
    seconds["score_plain"] = watch.lap()
    chunks = 0
    if config.adapt == "score-first":
        losses["nll_adaptive"] = _score_first(model, text, config, runtime, reporter)
        seconds["score_adaptive"] = watch.lap()
        plan = plan_windows(len(text.tokens), length, config.stride)
        chunks = len(list(plan_chunks(plan, config.chunk_tokens)))
    scores = {name: text.score(nll) for name, nll in losses.items()}
    adaptive = scores.get("nll_adaptive")
    return FileScore(scores["nll"], scores["nll_plain"], adaptive, chunks, losses, seconds, loaded.manifest)


class _Watch:
    """Seconds between laps, with what was asked of the device done."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, self._last = runtime, time.perf_counter()

    def lap(self) -> float:
        self._runtime.synchronize()
        before, self._last = self._last, time.perf_counter()
        return self._last - before


def _score_first(
    model: GPT, text: Text, config: ScoreConfig, runtime: Runtime, reporter: Reporter
) -> NDArray[np.float32]:
    reporter.stage("score (adaptive)", 1)
    return score_first_nll(model, text.tokens, config, runtime, progress=reporter.advance)


def text_nll(
    model: GPT, text: Text, stride: int, batch_tokens: int, runtime: Runtime, reporter: Reporter
) -> NDArray[np.float32]:
    """[N - 1] nats of every target on every rank; stride 0 means windows without overlap."""
    reporter.stage("score" if stride else "score (no overlap)", 1)
    return token_nll(
        model,
        text.tokens,
        stride=stride or model.config.sequence_length,
        batch_tokens=batch_tokens,
        runtime=runtime,
        progress=reporter.advance,
    )


def check_tokenizer(path: Path, manifest: dict[str, Any], tokenizer: Tokenizer) -> None:
    """Raises ConfigError if the tokenizer is not the one that the artifact was trained with."""
    expected = manifest["tokenizer"].get("sha256")
    if tokenizer.digest != expected:
        raise ConfigError(
            f"{path} was trained with the tokenizer of digest {str(expected)[:16]}..., but {tokenizer.path} has "
            f"{tokenizer.digest[:16]}...; use the artifact's own tokenizer"
        )
