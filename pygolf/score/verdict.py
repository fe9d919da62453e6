"""Whether a score is clean: which scored tokens the weights were learned from, and the score of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pygolf.data.copies import BLOCK_TOKENS, Copy, find_copies
from pygolf.data.loader import TokenSpan
from pygolf.errors import FormatError
from pygolf.progress import Reporter
from pygolf.score.documents import bits_per_byte
from pygolf.score.provenance import LEARNING_STAGES, TokenRange, seen_intervals
from pygolf.score.score_file import Text

SAME_TEXT_TOKENS = 2_048
"""Tokens from which on an equal run is a whole text (5 kB), and not boilerplate or a quotation."""
SAME_TEXT_ALLOWED = 0.01
"""Share of the scored tokens that may stand in such runs: public pages are copied, but more is another cut of the
scored text."""
COPIES_ALLOWED = 0.1
"""Share of the scored tokens that may stand in equal runs of any length."""
LISTED_COPIES = 20


@dataclass(frozen=True)
class CopyEntry:
    """Tokens [begin, end) of the scored text that stand in a shard from token `at` on."""

    begin: int
    end: int
    shard: str
    at: int


@dataclass(frozen=True)
class Verdict:
    """What the provenance of an artifact says about a score. Counts are None if it says nothing."""

    status: Literal["clean", "seen", "unknown"]
    fitted_tokens: int | None
    """Scored targets that were targets of training, adaptation or calibration: at the same place of a shard or, if
    they are more than SAME_TEXT_ALLOWED of all, in runs of SAME_TEXT_TOKENS that equal what was read elsewhere."""
    copied_tokens: int | None
    """Other scored targets in runs of text that also stand in what the weights were learned from: boilerplate,
    quotations and copied pages, unless they are more than COPIES_ALLOWED of all."""
    bpb_clean: float | None
    """Bits per byte of the targets that are neither fitted nor copied; None if there are none."""
    shards: int
    """Shards that the weights were learned from."""
    compared: int
    """How many of them were at hand, to be searched for copies."""
    copies: tuple[CopyEntry, ...]
    """The longest copies."""

    @property
    def seen(self) -> bool | None:
        return None if self.status == "unknown" else self.status == "seen"

    def to_dict(self) -> dict[str, Any]:
        """The field `provenance` of report.json."""
        return {**asdict(self), "block_tokens": BLOCK_TOKENS}


def read_provenance(path: Path, manifest: Mapping[str, Any]) -> list[TokenRange] | None:
    """The ranges in an artifact's manifest, None if it does not say. Raises FormatError if they are broken."""
    records = manifest["provenance"]
    if records is None:
        return None
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise FormatError(f"{path}: the manifest's provenance is not a list of token ranges")
    return [TokenRange.from_dict(r) for r in records]


def judge(
    records: Sequence[TokenRange] | None,
    text: Text,
    nll: NDArray[np.float32],
    shards: Mapping[str, Path],
    reporter: Reporter,
) -> Verdict:
    """Compares what the weights were learned from with a scored text.

    Args:
        records: ranges that the artifact names; None if it names none.
        text: what was scored.
        nll: [N - 1] nats of its targets.
        shards: digest -> file, of the shards at hand; copies are looked for in these.
        reporter: shows the search.
    """
    if records is None:
        return Verdict("unknown", None, None, None, 0, 0, ())
    learned = [r for r in records if r.stage in LEARNING_STAGES]
    spans = [TokenSpan(shards[r.digest], max(r.begin, 0), r.end) for r in learned if r.digest in shards]
    reporter.stage("check", len(spans))
    copies = find_copies(text.tokens, spans, reporter.advance)
    fitted = _mask(len(text.tokens), seen_intervals(learned, text.ranges))
    copies = [c for c in copies if not fitted[c.begin : c.end - 1].all()]
    whole = _targets(text, [c for c in copies if c.end - c.begin >= SAME_TEXT_TOKENS])
    if whole.sum() > SAME_TEXT_ALLOWED * len(whole):
        fitted |= whole
    copied = _targets(text, copies) & ~fitted
    clean = ~(fitted | copied)
    seen = fitted.any() or copied.sum() > COPIES_ALLOWED * len(copied)
    return Verdict(
        "seen" if seen else "clean",
        int(fitted.sum()),
        int(copied.sum()),
        bits_per_byte(float(nll[clean].sum(dtype=np.float64)), int(text.target_bytes[clean].sum(dtype=np.int64))),
        len({r.digest for r in learned}),
        len({r.digest for r in learned if r.digest in shards}),
        _longest(copies),
    )


def _targets(text: Text, copies: Sequence[Copy]) -> NDArray[np.bool_]:
    # The first token of a run is only the context of the others.
    return _mask(len(text.tokens), [(c.begin + 1, c.end) for c in copies])


def _mask(tokens: int, intervals: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """[tokens - 1] whether the token of each target lies in an interval."""
    mask = np.zeros(tokens, dtype=np.bool_)
    for begin, end in intervals:
        mask[begin:end] = True
    return mask[1:]


def _longest(copies: Sequence[Copy]) -> tuple[CopyEntry, ...]:
    ordered = sorted(copies, key=lambda c: (c.begin - c.end, c.begin))[:LISTED_COPIES]
    return tuple(CopyEntry(c.begin, c.end, c.span.path.name, c.at) for c in ordered)
