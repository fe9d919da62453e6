"""Text that a packed model writes, for the report."""

from __future__ import annotations

from pathlib import Path

from pygolf.data.tokenizer import Tokenizer
from pygolf.model.generate import generate
from pygolf.model.load import load_artifact
from pygolf.runtime import Runtime

SAMPLES = 3
SAMPLE_TOKENS = 192
TEMPERATURE = 0.8


def sample_texts(artifact: Path, tokenizer: Tokenizer, runtime: Runtime, seed: int) -> list[str]:
    """Three texts from the beginning of a document, each up to its end or 192 tokens long."""
    boundaries = set(tokenizer.token_bytes().is_boundary.nonzero()[0].tolist()) - {tokenizer.bos_id}
    ids = generate(
        load_artifact(artifact, runtime).model,
        [tokenizer.bos_id],
        max_new_tokens=SAMPLE_TOKENS,
        temperature=TEMPERATURE,
        seed=seed,
        batch=SAMPLES,
        banned=boundaries,
    )
    return [tokenizer.decode(_until(row, tokenizer.bos_id)) for row in ids.tolist()]


def _until(ids: list[int], end: int) -> list[int]:
    """The ids before the first `end`."""
    return ids[: ids.index(end)] if end in ids else ids
