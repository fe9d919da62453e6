"""Is one set of scores better than another, or is it luck? Welch's t test over seeds, a bootstrap over documents."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2_000
CONFIDENCE = 0.95
_SEED = 20240520


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (None for one value) of some scores."""

    mean: float
    std: float | None


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of one value or more."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def welch_less(a: Sequence[float], b: Sequence[float]) -> float | None:
    """One-sided p that the mean of a is less than that of b by chance; None without two values and spread a side.

    Source: B. L. Welch, Biometrika 34 (1947): t test without equal variances.
    """
    if min(len(a), len(b)) < 2 or (len(set(a)) == 1 and len(set(b)) == 1):
        return None
    from scipy.stats import ttest_ind  # half a second to import, and only this function needs it

    return float(ttest_ind(a, b, equal_var=False, alternative="less").pvalue)


@dataclass(frozen=True)
class PairedDifference:
    """Difference of two scores of the same documents, with the interval of documents drawn anew."""

    documents: int
    better: int
    """Documents on which the first is better."""
    nats: float
    """Nats a token; negative: the first is better."""
    nats_interval: tuple[float, float]
    bpb: float
    bpb_interval: tuple[float, float]


def paired_difference(
    nll_difference: NDArray[np.float64], tokens: NDArray[np.int64], byte_counts: NDArray[np.int64]
) -> PairedDifference | None:
    """Of documents [D], each with the difference of its nats, its tokens and its bytes; None for fewer than two.

    The interval is the middle CONFIDENCE of the ratios of sums over RESAMPLES draws of D documents with replacement.
    """
    count = len(nll_difference)
    if count < 2:
        return None
    rng = np.random.default_rng(_SEED)
    table = np.stack([nll_difference, tokens, byte_counts * math.log(2)])
    draws = np.stack([table[:, rng.integers(0, count, count)].sum(axis=1) for _ in range(RESAMPLES)])
    edges = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    total = table.sum(axis=1)
    nats, bits = (np.quantile(draws[:, 0] / draws[:, i], edges).tolist() for i in (1, 2))
    return PairedDifference(
        documents=count,
        better=int((nll_difference < 0).sum()),
        nats=float(total[0] / total[1]),
        nats_interval=(nats[0], nats[1]),
        bpb=float(total[0] / total[2]),
        bpb_interval=(bits[0], bits[1]),
    )
