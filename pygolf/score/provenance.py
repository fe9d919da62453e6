"""Which tokens the weights were learned from, and whether a score counts any of them.

Convention. A TokenRange [begin, end) says which tokens of a shard were read as one run, in any windows. Each token is
predicted from the one before it, so the targets of a range are the tokens begin + 1 .. end - 1: the first token is
only context. Adapting on [0, n) and scoring [n - 1, m) or [n, m) therefore share no target and the score is clean,
although token n - 1 was learned from and then read as context. Scoring [n - 2, m) counts one seen token, n - 1.
A text that runs on from another shard has the whole shard as targets: its begin is -1.

Shards are told apart by the digest of their token bytes, never by name: a renamed or copied shard is the same text.
Text that was copied to another place or shard is found by its blocks (pygolf.data.copies), where the shards are at
hand. The same text tokenized differently is not recognised.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from pygolf.data.loader import TokenSpan
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


def token_ranges(stage: Stage, split: str, spans: Sequence[TokenSpan], digests: Mapping[Path, str]) -> list[TokenRange]:
    """Spans as provenance records; `digests` are those of their shards."""
    return [TokenRange(stage, split, s.path.name, digests[s.path], s.begin, s.end) for s in spans]


def seen_intervals(records: Iterable[TokenRange], scored: Sequence[TokenRange]) -> list[Interval]:
    """Tokens [begin, end) of the scored text that a learning stage predicted too, at the same place of a shard.

    The scored text is the tokens of its ranges, one behind the other; intervals are sorted and do not overlap.
    """
    learned = _targets_by_digest(r for r in records if r.stage in LEARNING_STAGES)
    found: list[Interval] = []
    offset = 0
    for r in scored:
        first = max(r.begin, 0)
        shared = _overlap([r.targets], learned.get(r.digest, []))
        found += [(begin - first + offset, end - first + offset) for begin, end in shared]
        offset += max(r.end - first, 0)
    return _union(found)


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


def _overlap(a: list[Interval], b: list[Interval]) -> list[Interval]:
    """The numbers in both of two lists of sorted intervals."""
    return [(max(x[0], y[0]), min(x[1], y[1])) for x in a for y in b if max(x[0], y[0]) < min(x[1], y[1])]
