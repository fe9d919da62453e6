"""A verdict counts what was fitted, what was copied, and scores the rest."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from pygolf.data.bundled import BUNDLED, bundled_texts
from pygolf.data.dataset import TOKENIZER_NAME
from pygolf.data.find import shard_digest
from pygolf.data.shards import write_shard
from pygolf.data.tokenizer import Tokenizer
from pygolf.errors import FormatError
from pygolf.progress import Reporter
from pygolf.score.provenance import Stage, TokenRange
from pygolf.score.score_file import Text
from pygolf.score.verdict import Verdict, judge, read_provenance

SILENT = Reporter(enabled=False)
SCORED = slice(1_000, 2_000)


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return Tokenizer(BUNDLED / TOKENIZER_NAME).encode_documents(bundled_texts("val"))[:6_000]


@pytest.fixture(scope="module")
def nll() -> np.ndarray:
    return np.random.default_rng(0).random(999).astype(np.float32)


def verdict(
    tokens: np.ndarray, nll: np.ndarray, folder: Path, *learned: tuple[Stage, str, int, int], hidden: str = ""
) -> Verdict:
    """Judges tokens 1000 .. 1999 of shard `val`; shard `train` holds 401 of them from its token 37 on."""
    write_shard(folder / "val", tokens[:3_000])
    write_shard(folder / "train", np.concatenate([tokens[4_000:4_037], tokens[1_500:1_901], tokens[5_000:]]))
    digests = {name: shard_digest(folder / name) for name in ("val", "train")}
    scored = TokenRange("score", "val", "val", digests["val"], SCORED.start, SCORED.stop)
    text = Text(tokens[SCORED], Tokenizer(BUNDLED / TOKENIZER_NAME), [scored])
    ranges = [TokenRange(stage, "train", name, digests[name], a, b) for stage, name, a, b in learned]
    shards = {digest: folder / name for name, digest in digests.items() if name != hidden}
    return judge(ranges, text, nll, shards, SILENT)


def bpb_without(tokens: np.ndarray, nll: np.ndarray, *seen: slice) -> float:
    text = Text(tokens[SCORED], Tokenizer(BUNDLED / TOKENIZER_NAME), [])
    kept = np.ones(1_000, bool)
    for part in seen:
        kept[part] = False
    return float(nll[kept[1:]].sum(dtype=np.float64) / (math.log(2) * text.target_bytes[kept[1:]].sum()))


def test_clean(tokens: np.ndarray, nll: np.ndarray, tmp_path: Path) -> None:
    found = verdict(tokens, nll, tmp_path, ("train", "train", 440, 1_000), ("adapt", "val", 0, 1_000))
    assert (found.status, found.fitted_tokens, found.copied_tokens, found.copies) == ("clean", 0, 0, ())
    assert (found.shards, found.compared) == (2, 2)
    assert found.bpb_clean == pytest.approx(bpb_without(tokens, nll))


def test_fitted_and_copied_count_once_and_leave_the_clean_part(
    tokens: np.ndarray, nll: np.ndarray, tmp_path: Path
) -> None:
    found = verdict(tokens, nll, tmp_path, ("calibrate", "val", 900, 1_600), ("train", "train", 0, 1_000))
    # Fitted: tokens 1000 .. 1599, the first of them no target. Copied: 1501 .. 1900, but for those that were fitted.
    assert (found.status, found.fitted_tokens, found.copied_tokens) == ("seen", 599, 301)
    assert found.bpb_clean == pytest.approx(bpb_without(tokens, nll, slice(0, 901)))
    assert [(c.begin, c.end, c.shard, c.at) for c in found.copies] == [(500, 901, "train", 37)]


def test_only_what_was_read_counts(tokens: np.ndarray, nll: np.ndarray, tmp_path: Path) -> None:
    assert verdict(tokens, nll, tmp_path, ("score", "val", 0, 3_000)).status == "clean"
    assert verdict(tokens, nll, tmp_path, ("train", "train", 0, 300)).copied_tokens == 262


def test_short_runs_are_counted_and_leave_the_score_clean(tokens: np.ndarray, nll: np.ndarray, tmp_path: Path) -> None:
    found = verdict(tokens, nll, tmp_path, ("train", "train", 0, 130))
    assert (found.status, found.copied_tokens) == ("clean", 92)
    assert found.bpb_clean == pytest.approx(bpb_without(tokens, nll, slice(501, 593)))


def test_the_same_text_cut_into_another_shard_is_fitted(tokens: np.ndarray, tmp_path: Path) -> None:
    """2,100 of 30,000 tokens: fewer than boilerplate may hold, but in one run that is too long for that."""
    scored = np.tile(tokens[:6_000], 5) + np.repeat(np.arange(5), 6_000).astype(np.uint16)
    write_shard(tmp_path / "other", np.concatenate([tokens[:7], scored[7_000:9_100]]))
    digest = shard_digest(tmp_path / "other")
    text = Text(scored, Tokenizer(BUNDLED / TOKENIZER_NAME), [TokenRange("score", "val", "val", "ab" * 32, 0, 30_000)])
    records = [TokenRange("adapt", "train", "other", digest, 0, 2_107)]
    found = judge(records, text, np.ones(29_999, np.float32), {digest: tmp_path / "other"}, SILENT)
    assert (found.status, found.fitted_tokens, found.copied_tokens) == ("seen", 2_099, 0)


def test_shards_that_are_not_here_are_counted(tokens: np.ndarray, nll: np.ndarray, tmp_path: Path) -> None:
    found = verdict(tokens, nll, tmp_path, ("train", "train", 0, 1_000), hidden="train")
    assert (found.status, found.shards, found.compared) == ("clean", 1, 0)


def test_an_artifact_that_says_nothing_is_unknown(tokens: np.ndarray, nll: np.ndarray, tmp_path: Path) -> None:
    text = Text(tokens[SCORED], Tokenizer(BUNDLED / TOKENIZER_NAME), [])
    found = judge(read_provenance(tmp_path, {"provenance": None}), text, nll, {}, SILENT)
    assert (found.status, found.seen, found.fitted_tokens) == ("unknown", None, None)
    with pytest.raises(FormatError, match="not a list of token ranges"):
        read_provenance(tmp_path, {"provenance": "val"})
