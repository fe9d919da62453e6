"""Which tokens the weights were learned from, and whether a score counts any of them.

Convention. A TokenRange [begin, end) says which tokens of a shard were read as one run, in any windows. Each token is
predicted from the one before it, so the targets of a range are the tokens begin + 1 .. end - 1: the first token is
only context. Adapting on [0, n) and scoring [n - 1, m) or [n, m) therefore share no target and the score is clean,
although token n - 1 was learned from and then read as context. Scoring [n - 2, m) counts one seen token, n - 1.
A text that runs on from another shard has the whole shard as targets: its begin is -1.

Shards are told apart by the digest of their token bytes, never by name: a renamed or copied shard is the same text.
The same text cut or tokenized differently has another digest and is not recognised.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from pygolf.errors import DataError

Stage = Literal["train", "adapt", "calibrate", "score"]
LEARNING_STAGES: frozenset[Stage] = frozenset({"train", "adapt", "calibrate"})
"""Stages whose tokens leave a mark in the artifact's weights."""

Interval = tuple[int, int]


@dataclass(frozen=True)
class TokenRange:
    """Tokens [begin, end) of a shard, read by a stage. Raises DataError for values that cannot be."""

    stage: Stage
    split: str
    """Split of the data folder: train or val."""
    shard: str
    """File name of the shard, for people; the digest is what counts."""
    digest: str
    """SHA-256 of the shard's token bytes, 64 hexadecimal digits."""
    begin: int
    """First token that was read; -1 if the run came from the shard before."""
    end: int
    """One past the last token that was read."""

    def __post_init__(self) -> None:
        if self.stage not in get_args(Stage):
            raise DataError(f"token range of {self.shard}: stage {self.stage!r}, expected {get_args(Stage)}")
        if not re.fullmatch(r"[0-9a-f]{64}", self.digest):
            raise DataError(f"token range of {self.shard}: digest {self.digest!r}, expected 64 hexadecimal digits")
        if not -1 <= self.begin <= self.end:
            raise DataError(f"token range of {self.shard}: [{self.begin}, {self.end}), expected -1 <= begin <= end")

    @property
    def targets(self) -> Interval:
        """[first, last) of the tokens that were predicted; empty if first >= last."""
        return self.begin + 1, self.end

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TokenRange:
        """Raises DataError for entries that a manifest of this version cannot hold."""
        expected = {f.name: int if f.name in ("begin", "end") else str for f in fields(cls)}
        found = {name: type(value) for name, value in values.items()}
        if found != expected:
            raise DataError(
                f"provenance entry {values!r}: expected exactly the fields "
                f"{', '.join(f'{name} ({kind.__name__})' for name, kind in expected.items())}; "
                "is the artifact from another version?"
            )
        return cls(**values)


def seen_tokens(records: Iterable[TokenRange], scored: Iterable[TokenRange]) -> int:
    """How many scored targets were targets of a learning stage too. Each token counts once."""
    learned = _targets_by_digest(r for r in records if r.stage in LEARNING_STAGES)
    return sum(_overlap(intervals, learned.get(digest, [])) for digest, intervals in _targets_by_digest(scored).items())


def _targets_by_digest(ranges: Iterable[TokenRange]) -> dict[str, list[Interval]]:
    groups: defaultdict[str, list[Interval]] = defaultdict(list)
    for r in ranges:
        groups[r.digest].append(r.targets)
    return {digest: _union(intervals) for digest, intervals in groups.items()}


def _union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same numbers as sorted intervals that do not overlap."""
    merged: list[Interval] = []
    for begin, end in sorted(i for i in intervals if i[0] < i[1]):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def _overlap(a: list[Interval], b: list[Interval]) -> int:
    """Numbers in both of two lists that _union made."""
    i = j = total = 0
    while i < len(a) and j < len(b):
        total += max(0, min(a[i][1], b[j][1]) - max(a[i][0], b[j][0]))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return total
