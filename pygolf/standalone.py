"""An artifact file without its run folder: scored on other text, or made to write some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pygolf.config import ScoreConfig
from pygolf.data.find import find_shards, shard_digests
from pygolf.data.loader import whole_spans
from pygolf.data.splits import find_tokenizer, join_tokens, limit
from pygolf.data.tokenizer import Tokenizer
from pygolf.model.generate import generate
from pygolf.model.load import load_artifact
from pygolf.progress import Reporter
from pygolf.runtime import Runtime
from pygolf.score.code_bytes import code_archive
from pygolf.score.provenance import token_ranges
from pygolf.score.score_file import Text, check_tokenizer, score_file
from pygolf.score.verdict import judge, read_provenance


def score_folder(
    artifact: Path,
    folder: Path,
    tokenizer: Path | None,
    val_tokens: int,
    settings: ScoreConfig,
    runtime: Runtime,
    reporter: Reporter,
) -> dict[str, Any]:
    """Scores an artifact on the validation shards of a data folder; returns the figures of report.json."""
    spans = limit(whole_spans(find_shards(folder, "val")), val_tokens)
    pieces = Tokenizer(find_tokenizer(folder, tokenizer))
    shards = sorted(folder.glob("*_*.bin"))
    digests = dict(zip(shards, shard_digests(shards), strict=True))
    text = Text(join_tokens(spans, pieces.vocab_size), pieces, token_ranges("score", "val", spans, digests))
    result = score_file(artifact, text, settings, runtime, reporter)
    records = read_provenance(artifact, result.manifest)
    at_hand = {digest: path for path, digest in digests.items()}
    verdict = judge(records, text, result.losses["nll"], at_hand, reporter)
    return {
        **result.to_dict(),
        "seen": verdict.seen,
        "provenance": verdict.to_dict(),
        "bpb_adaptive": result.adaptive.bpb if result.adaptive else None,
        "artifact_bytes": artifact.stat().st_size,
        "code_bytes": code_archive().archive_bytes,
    }


def generate_text(
    artifact: Path,
    prompt: str,
    tokenizer: Path | None,
    runtime: Runtime,
    *,
    tokens: int,
    temperature: float,
    top_k: int | None,
    seed: int,
) -> str:
    """Text sampled from an artifact, the prompt included."""
    loaded = load_artifact(artifact, runtime)
    pieces = Tokenizer(find_tokenizer(artifact.parent, tokenizer))
    check_tokenizer(artifact, loaded.manifest, pieces)
    ids = [pieces.bos_id, *pieces.encode(prompt).tolist()]
    new = generate(loaded.model, ids, max_new_tokens=tokens, temperature=temperature, top_k=top_k, seed=seed)
    return pieces.decode([*ids, *new[0].tolist()])
