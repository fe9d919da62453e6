"""Comparisons: Welch's test by its formula, the challenge's bar, paired documents, and what must not be compared."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from pygolf.cli import main
from pygolf.errors import DataError, IoError
from pygolf.files import write_json
from pygolf.score.compare import RunScore, compare, load_run
from pygolf.score.documents import Documents, save_documents
from pygolf.score.stats import paired_difference, welch_less

DOCUMENTS = 400
RNG = np.random.default_rng(7)
TOKENS = RNG.integers(50, 900, DOCUMENTS)
BYTES = 2 * TOKENS + RNG.integers(0, 500, DOCUMENTS)
HARDNESS = 2 + RNG.random(DOCUMENTS)  # nats a token of each document


def run(folder: Path, seed: int, gain: float, text: str = "ab", tokenizer: str = "cd") -> RunScore:
    """A finished run that is better by `gain` nats a token than HARDNESS, with some luck on each document."""
    nll = TOKENS * (HARDNESS - gain + 0.02 * np.random.default_rng(seed).standard_normal(DOCUMENTS))
    begin = np.cumsum(TOKENS) - TOKENS
    blocks = np.zeros(1, np.float32)
    folder.mkdir(parents=True)
    save_documents(folder, Documents(text, tokenizer, begin, 2 * begin, TOKENS, BYTES, {"nll": nll}, blocks))
    bpb = float(nll.sum() / math.log(2) / BYTES.sum())
    write_json(folder / "report.json", {"seed": seed, "val_loss": nll.sum() / TOKENS.sum(), "bpb": bpb, "seen": False})
    return load_run(folder)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[list[RunScore], list[RunScore]]:
    better = [run(tmp_path / f"new-{seed}", seed, 0.02) for seed in (1, 2, 3)]
    return better, [run(tmp_path / f"old-{seed}", seed, 0.0) for seed in (4, 5, 6)]


def test_welch_is_the_textbook_formula() -> None:
    from scipy.stats import t as student

    a, b = [1.0803, 1.0805, 1.0812], [1.0901, 1.0890]
    va, vb = np.var(a, ddof=1) / len(a), np.var(b, ddof=1) / len(b)
    statistic = (np.mean(a) - np.mean(b)) / math.sqrt(va + vb)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    assert welch_less(a, b) == pytest.approx(student.cdf(statistic, freedom), rel=1e-9)
    assert welch_less(b, a) == pytest.approx(1 - student.cdf(statistic, freedom), rel=1e-9)


def test_welch_needs_two_runs_a_side_and_some_spread() -> None:
    assert welch_less([1.0], [2.0, 2.1]) is None
    assert welch_less([1.0, 1.0], [2.0, 2.0]) is None


def test_a_clear_gain_clears_the_bar(runs: tuple[list[RunScore], list[RunScore]]) -> None:
    found = compare(*runs)
    assert found.nats == pytest.approx(-0.02, abs=0.004)
    assert found.bpb == pytest.approx(found.runs.bpb.mean - found.against.bpb.mean)
    assert found.p is not None
    assert found.p < 0.01
    assert found.clears_bar is True
    assert compare(runs[1], runs[0]).clears_bar is False  # worse, not better


def test_a_gain_below_the_bar_does_not(tmp_path: Path) -> None:
    sides = [[run(tmp_path / f"{g}-{seed}", seed, g) for seed in (1, 2, 3)] for g in (0.003, 0.0)]
    assert compare(*sides).clears_bar is False
    assert compare(sides[0][:1], sides[1]).clears_bar is None


def test_documents_are_compared_pair_by_pair(runs: tuple[list[RunScore], list[RunScore]]) -> None:
    found = compare(*runs)
    paired = found.paired
    assert paired is not None
    assert paired.documents == DOCUMENTS
    assert paired.nats == pytest.approx(found.nats, rel=1e-9)
    assert paired.bpb == pytest.approx(found.bpb, rel=1e-9)
    low, high = paired.nats_interval
    assert low < paired.nats < high
    assert high < 0  # the documents differ by far more than the runs, and yet the pairs tell them apart
    assert paired.better > 0.7 * DOCUMENTS


def test_the_interval_is_that_of_the_ratio_of_sums() -> None:
    """Against the delta method: std of sum(d) / sum(t) over documents drawn with replacement."""
    difference = TOKENS * RNG.normal(-0.01, 0.05, DOCUMENTS)
    found = paired_difference(difference, TOKENS, BYTES)
    assert found is not None
    ratio = difference.sum() / TOKENS.sum()
    std = math.sqrt(((difference - ratio * TOKENS) ** 2).sum()) / TOKENS.sum()
    low, high = found.nats_interval
    assert (low, high) == pytest.approx((ratio - 1.96 * std, ratio + 1.96 * std), abs=0.25 * std)
    assert paired_difference(difference[:1], TOKENS[:1], BYTES[:1]) is None


@pytest.mark.parametrize(("change", "what"), [({"text": "ee"}, "text"), ({"tokenizer": "ff"}, "tokenizer")])
def test_other_texts_and_tokenizers_are_refused(change: dict[str, str], what: str, tmp_path: Path) -> None:
    one, two = run(tmp_path / "one", 1, 0.0), run(tmp_path / "two", 2, 0.0, **change)
    with pytest.raises(DataError, match=rf"scored on another {what} .*cannot be compared"):
        compare([one], [two])


def test_a_run_against_itself_is_refused(runs: tuple[list[RunScore], list[RunScore]]) -> None:
    with pytest.raises(DataError, match="on both sides"):
        compare(runs[0], [*runs[1], runs[0][1]])


def test_runs_that_are_not_finished_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"report\.json"):
        load_run(tmp_path)
    run(tmp_path / "run", 1, 0.0)
    (tmp_path / "run" / "documents.safetensors").unlink()
    with pytest.raises(IoError, match=r"documents\.safetensors not found"):
        load_run(tmp_path / "run")


def test_the_command(
    runs: tuple[list[RunScore], list[RunScore]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    new, old = ([str(r.folder) for r in side] for side in runs)
    out = tmp_path / "compared.json"
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr(sys, "argv", ["pygolf", "compare", *new, "--against", *old, "--json-out", str(out)])
    main()
    text = capsys.readouterr().out
    assert "seeds 1, 2, 3" in text
    assert "the same 400 documents" in text
    assert json.loads(out.read_text()) == json.loads(json.dumps(compare(*runs).to_dict()))
