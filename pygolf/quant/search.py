"""The global step that fills a byte budget, found on the real packed size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pygolf.errors import BudgetError

CLOSE_ENOUGH = 0.001
"""A size at most this share below what is allowed ends the search."""
AIM = 0.0004
"""The search aims this share below: the size is not quite smooth in the step."""
PACKINGS = 12
NEGLIGIBLE_LOSS = 1e-5
"""Expected rise of the loss in nats a token below which finer steps buy nothing. A budget with room left over is not
filled beyond it: the weights of a 27 M model then take about 9 bits each."""
OCTAVES = (-60.0, 40.0)
"""Steps are powers of two between these."""


@dataclass(frozen=True)
class Packed:
    """An artifact's bytes and the step that they were coded at."""

    step: float
    data: bytes
    packings: int
    """How often it was packed to find the step."""


def finest_step(weights: int) -> float:
    """The step at which `weights` weights raise the loss by NEGLIGIBLE_LOSS: weights · s² / 24 (see rd)."""
    return math.sqrt(24 * NEGLIGIBLE_LOSS / max(weights, 1))


def fit_step(
    pack: Callable[[float], bytes], *, estimate: Callable[[float], float], finest: float, allowed: int, room: str
) -> Packed:
    """The artifact `pack(step)` that is largest within `allowed` bytes, and at most CLOSE_ENOUGH below it.

    `estimate` guesses the bytes at a step: the search begins with it, corrects it by the ratio found, and closes in by
    regula falsi once the target lies between two packings. Steps finer than `finest` are not tried.
    Raises BudgetError, saying by how many bytes it is too large and, in `room`, where bytes could come from.
    """
    lowest, target = math.log2(finest), (1 - AIM) * allowed
    fits: tuple[float, int] | None = None  # octave and bytes of the largest that fits
    over: tuple[float, int] | None = None  # and of the smallest that does not
    best, octave = b"", max(_octave_of(estimate, target), lowest)
    for packing in range(1, PACKINGS + 1):
        data = pack(2.0**octave)
        if len(data) > allowed:
            if over is not None and len(data) >= over[1]:
                break  # larger steps save nothing any more
            over = (octave, len(data))
        elif fits is None or len(data) > fits[1]:
            fits, best = (octave, len(data)), data
        if fits is not None and (fits[1] >= (1 - CLOSE_ENOUGH) * allowed or fits[0] <= lowest):
            break
        if fits is not None and over is not None:
            octave = _between(fits, over, target)
        else:
            octave = _beyond(octave, target / len(data), estimate, least=0.01 * 2**packing)
        octave = max(octave, lowest)
    if fits is None:
        excess = len(data) - max(allowed, 0)
        raise BudgetError(
            f"the artifact is {len(data):,} bytes where {max(allowed, 0):,} are left for it: {excess:,} too many, "
            f"even with steps of {2.0**octave:.2g}. {room}"
        )
    return Packed(2.0 ** fits[0], best, packing)


def _beyond(octave: float, ratio: float, estimate: Callable[[float], float], least: float) -> float:
    """Where the size should be `ratio` times that at `octave`, and at least `least` octaves away."""
    corrected = _octave_of(estimate, ratio * estimate(2.0**octave))
    return max(corrected, octave + least) if ratio < 1 else min(corrected, octave - least)


def _between(fits: tuple[float, int], over: tuple[float, int], target: float) -> float:
    """Regula falsi on the logarithm of the size, away from the ends of the bracket so that it always shrinks."""
    share = math.log(over[1] / target) / math.log(over[1] / max(fits[1], 1))
    return over[0] + min(max(share, 0.1), 0.9) * (fits[0] - over[0])


def _octave_of(estimate: Callable[[float], float], size: float) -> float:
    """log2 of the step at which the estimate is `size`, by bisection."""
    low, high = OCTAVES
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if estimate(2.0**middle) > size else (low, middle)
    return high
