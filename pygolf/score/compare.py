"""Runs against other runs on the same text: means over seeds, Welch's test, the challenge's bar, paired documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pygolf.errors import DataError
from pygolf.files import read_json
from pygolf.score.documents import Documents, load_documents
from pygolf.score.stats import PairedDifference, Spread, paired_difference, spread, welch_less

BAR_NATS = 0.005
"""A claim of the challenge must be better by this many nats a token ..."""
BAR_P = 0.01
"""... with a p below this."""


@dataclass(frozen=True)
class RunScore:
    """What a comparison needs of a finished run."""

    folder: Path
    seed: int
    val_loss: float
    bpb: float
    seen: bool | None
    documents: Documents


@dataclass(frozen=True)
class Side:
    """One of the two sets of runs."""

    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    val_loss: Spread
    """Nats a token."""
    bpb: Spread
    not_clean: tuple[str, ...]
    """Runs whose score is seen or unknown."""


@dataclass(frozen=True)
class Comparison:
    """The first side against the second; negative differences mean that the first is better."""

    runs: Side
    against: Side
    nats: float
    """Difference of the mean losses, nats a token."""
    bpb: float
    p: float | None
    """One-sided Welch test that the first is better; None without two runs and spread a side."""
    clears_bar: bool | None
    """Whether it is better by BAR_NATS with p below BAR_P; None if p is."""
    paired: PairedDifference | None
    """The same documents, each side's losses averaged over its runs; None for fewer than two documents."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def load_run(folder: Path) -> RunScore:
    """Reads a finished run. Raises DataError or IoError if it has no report or no table of documents."""
    report = dict(read_json(folder / "report.json"))
    figures = (report["seed"], report["val_loss"], report["bpb"], report["seen"])
    return RunScore(folder, *figures, load_documents(folder))


def compare(runs: Sequence[RunScore], against: Sequence[RunScore]) -> Comparison:
    """Compares two sets of one run or more. Raises DataError for other texts, tokenizers or one run on both sides."""
    everyone = [*runs, *against]
    for run in everyone[1:]:
        _check_same_text(everyone[0], run)
    twice = {r.folder.resolve() for r in runs} & {r.folder.resolve() for r in against}
    if twice:
        raise DataError(f"{min(twice)} is on both sides of the comparison; leave it out on one")
    a, b = [r.val_loss for r in runs], [r.val_loss for r in against]
    p = welch_less(a, b)
    one, two = _side(runs), _side(against)
    nats = one.val_loss.mean - two.val_loss.mean
    return Comparison(
        runs=one,
        against=two,
        nats=nats,
        bpb=one.bpb.mean - two.bpb.mean,
        p=p,
        clears_bar=None if p is None else -nats >= BAR_NATS and p < BAR_P,
        paired=_paired(runs, against),
    )


def _check_same_text(one: RunScore, two: RunScore) -> None:
    for what, name in (("text", "text_sha256"), ("tokenizer", "tokenizer_sha256")):
        found = [getattr(run.documents, name) for run in (one, two)]
        if found[0] != found[1]:
            raise DataError(
                f"{one.folder} and {two.folder} were scored on another {what} ({found[0][:16]}... and "
                f"{found[1][:16]}...); their losses cannot be compared. Score both on the same {what}"
            )


def _side(runs: Sequence[RunScore]) -> Side:
    return Side(
        tuple(str(r.folder) for r in runs),
        tuple(r.seed for r in runs),
        spread([r.val_loss for r in runs]),
        spread([r.bpb for r in runs]),
        tuple(str(r.folder) for r in runs if r.seen is not False),
    )


def _paired(runs: Sequence[RunScore], against: Sequence[RunScore]) -> PairedDifference | None:
    table = runs[0].documents
    kept = table.tokens > 0
    difference = _mean_nll(runs) - _mean_nll(against)
    return paired_difference(difference[kept], table.tokens[kept], table.bytes[kept])


def _mean_nll(runs: Sequence[RunScore]) -> NDArray[np.float64]:
    """[D] nats of every document, averaged over the runs."""
    mean: NDArray[np.float64] = np.mean([r.documents.nll["nll"] for r in runs], axis=0)
    return mean
