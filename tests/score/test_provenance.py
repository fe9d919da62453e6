"""A score is clean exactly if no scored target was a target of training, adaptation or calibration."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pygolf.errors import DataError
from pygolf.score.provenance import Stage, TokenRange, seen_intervals

VAL, OTHER = "ab" * 32, "cd" * 32


def tokens(begin: int, end: int, stage: Stage = "adapt", digest: str = VAL, shard: str = "val_0.bin") -> TokenRange:
    return TokenRange(stage, "val", shard, digest, begin, end)


def scored(begin: int, end: int, digest: str = VAL) -> TokenRange:
    return tokens(begin, end, "score", digest)


def seen_tokens(records: list[TokenRange], text: list[TokenRange]) -> int:
    return sum(end - begin for begin, end in seen_intervals(records, text))


def test_fitting_the_scored_tokens_is_seen() -> None:
    assert seen_tokens([tokens(0, 100)], [scored(0, 100)]) == 99  # token 0 is context only


@pytest.mark.parametrize(
    ("first", "expected"),
    [(100, 0), (99, 0), (98, 1), (97, 2)],
    ids=["starts behind", "last adapted token is context", "one target shared", "two targets shared"],
)
def test_ranges_that_touch(first: int, expected: int) -> None:
    assert seen_tokens([tokens(0, 100)], [scored(first, 200)]) == expected


def test_a_range_of_one_token_has_no_target() -> None:
    assert seen_tokens([tokens(50, 51), tokens(60, 60)], [scored(0, 100)]) == 0


def test_a_run_from_the_shard_before_makes_token_0_a_target() -> None:
    assert seen_tokens([tokens(-1, 1)], [scored(-1, 100)]) == 1
    assert seen_tokens([tokens(-1, 1)], [scored(0, 100)]) == 0


def test_overlapping_records_count_once() -> None:
    records = [tokens(0, 60), tokens(40, 100, "calibrate"), tokens(40, 50, "train")]
    assert seen_tokens(records, [scored(0, 90)]) == 89


@pytest.mark.parametrize(("stage", "expected"), [("train", 9), ("adapt", 9), ("calibrate", 9), ("score", 0)])
def test_stages_that_learn(stage: Stage, expected: int) -> None:
    assert seen_tokens([tokens(10, 20, stage)], [scored(0, 100)]) == expected


def test_the_digest_tells_shards_apart_and_the_name_does_not() -> None:
    renamed = TokenRange("train", "train", "copy.bin", VAL, 0, 100)
    assert seen_tokens([renamed], [scored(0, 100)]) == 99
    assert seen_tokens([tokens(0, 100, digest=OTHER)], [scored(0, 100)]) == 0


spans = st.lists(st.tuples(st.integers(-1, 30), st.integers(0, 30), st.sampled_from([VAL, OTHER])), max_size=6)


@given(learned=spans, wanted=spans)
def test_finds_what_sets_find(learned: list[tuple[int, int, str]], wanted: list[tuple[int, int, str]]) -> None:
    def ranges(raw: list[tuple[int, int, str]]) -> list[TokenRange]:
        return [tokens(begin, begin + size, digest=digest) for begin, size, digest in raw]

    predicted = {(digest, t) for begin, size, digest in learned for t in range(begin + 1, begin + size)}
    # Token by token, in the text that the wanted ranges make one behind the other.
    text = [(r, t) for r in ranges(wanted) for t in range(max(r.begin, 0), r.end)]
    expected = {i for i, (r, t) in enumerate(text) if t > r.begin and (r.digest, t) in predicted}
    found = [i for begin, end in seen_intervals(ranges(learned), ranges(wanted)) for i in range(begin, end)]
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_survives_a_json_manifest() -> None:
    original = tokens(-1, 7, "calibrate")
    assert TokenRange.from_dict(json.loads(json.dumps(original.to_dict()))) == original


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage": "peek"}, "stage 'peek', expected"),
        ({"digest": "AB" * 32}, "expected 64 hexadecimal digits"),
        ({"begin": -2}, r"\[-2, 100\), expected -1 <= begin <= end"),
        ({"begin": 101}, r"\[101, 100\), expected -1 <= begin <= end"),
        ({"end": "100"}, "expected exactly the fields"),
        ({"extra": 1}, "expected exactly the fields"),
    ],
)
def test_broken_manifest_entries_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TokenRange.from_dict(tokens(0, 100).to_dict() | change)
