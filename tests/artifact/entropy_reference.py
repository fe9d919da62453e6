"""Decoder of entropy-coded codes, written from csrc/FORMAT.md alone: slow, obvious, integers only.

Names of quantities are those of the specification. It trusts its input: only the C++ decoder checks the rules E1 to E6.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

EXP2 = [3037000500, 3611622603, 3938502376, 4112874773, 4202935003, 4248701965, 4271771996, 4283353945]
EXP2 += [4289156690, 4292061010, 4293513907, 4294240540, 4294603903, 4294785595, 4294876445, 4294921870]
EXPONENT = [793129986396, 666940162391, 560827591743, 471597911472]
OCTAVE = [65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194]
NEXT = {
    1: [[0, 0]],
    4: [[0, 2], [2, 0], [1, 3], [3, 1]],
    8: [[0, 2], [2, 0], [4, 6], [6, 4], [5, 7], [7, 5], [1, 3], [3, 1]],
}
LOWEST = 1 << 31
RUN = 128
TABLES = 48


class Trellis:
    """Which quantizer the codes of a row belong to, one code after the other."""

    def __init__(self, states: int) -> None:
        self.next, self.states, self.state = NEXT[states], states, 0

    def quantizer(self, column_log: int) -> int:
        return int(self.states > 1 and column_log % 2 == 0 and self.state >= self.states // 2)

    def advance(self, code: int, column_log: int) -> None:
        if column_log % 2 == 0:
            self.state = self.next[self.state][code & 1]


def trellis_levels(row: Sequence[int], column_logs: Sequence[int], states: int) -> list[int]:
    """How many units each code of a row stands for."""
    trellis = Trellis(states)
    levels = []
    for code, log in zip(row, column_logs, strict=True):
        levels.append(code if states == 1 else 2 * code + trellis.quantizer(log))
        trellis.advance(code, log)
    return levels


def bell(table: int, halves: int) -> int:
    """2^32 exp(-m² / (2 spread²)) in integers, m = halves / 2."""
    quarter = table - 16
    exponent = halves * halves * EXPONENT[quarter % 4] >> (26 + quarter // 4)
    if exponent >> 16 > 32:
        return 0
    value = 1 << 32
    for bit, factor in enumerate(EXP2):
        if exponent >> (15 - bit) & 1:
            value = value * factor >> 32
    return value >> (exponent >> 16)


class Table:
    """Counts of the symbols 0 .. 2 radius and of the escape, and the starts of their intervals."""

    def __init__(self, table: int, quantizer: int = 0) -> None:
        self.radius = 4 + (OCTAVE[table % 8] >> (15 - table // 8))
        curve = [bell(table, 2 * code + quantizer) for code in range(-self.radius, self.radius + 1)]
        self.counts = [(value << 16) // sum(curve) for value in curve] + [0]
        self.rebuild()

    def rebuild(self) -> None:
        symbols = len(self.counts)
        share = ((65536 - symbols) << 32) // sum(self.counts)
        self.starts = [symbol + (sum(self.counts[:symbol]) * share >> 32) for symbol in range(symbols)] + [65536]


class Stream:
    """A state and words from the front of the bytes, raw bits from their end."""

    def __init__(self, data: bytes) -> None:
        self.state = int.from_bytes(data[:8], "little")
        self.data, self.position = data, 8
        self.raw = int.from_bytes(data[::-1], "little")

    def symbol(self, starts: Sequence[int]) -> int:
        slot = self.state % 65536
        symbol = max(s for s in range(len(starts) - 1) if starts[s] <= slot)
        self.state = (starts[symbol + 1] - starts[symbol]) * (self.state >> 16) + slot - starts[symbol]
        if self.state < LOWEST:
            word = int.from_bytes(self.data[self.position : self.position + 4], "little")
            self.state = self.state << 32 | word
            self.position += 4
        return symbol

    def bits(self, count: int) -> int:
        value = self.raw & ((1 << count) - 1)
        self.raw >>= count
        return value

    def escaped(self, radius: int) -> int:
        sign = -1 if self.bits(1) else 1
        length = self.bits(5)
        return sign * (radius + (1 << length) + self.bits(length))


def decode_stream(
    data: bytes,
    classes: Sequence[int],
    weight: int,
    states: int = 1,
    column_logs: Sequence[int] = (0,),
    centre: int = 0,
) -> list[int]:
    """One code a class, `centre` included. It begins with a row if the codes have a trellis."""
    stream = Stream(data)
    tables = [[Table(table, quantizer) for table in range(TABLES)] for quantizer in range(2 if states > 1 else 1)]
    codes: list[int] = []
    for begin in range(0, len(classes), RUN):
        run = classes[begin : begin + RUN]
        shifts = [max(0, (k - 40) // 8) for k in run]
        for k, shift in zip(run, shifts, strict=True):
            column = len(codes) % len(column_logs)
            if column == 0:
                trellis = Trellis(states)
            table = tables[0 if shift else trellis.quantizer(column_logs[column])][k - 8 * shift]
            symbol = stream.symbol(table.starts)
            table.counts[symbol] += weight
            escape = len(table.counts) - 1
            codes.append(stream.escaped(table.radius) if symbol == escape else symbol - table.radius)
            if states > 1:
                codes[-1] = with_low_bits(codes[-1], shift, stream) + centre
                trellis.advance(codes[-1], column_logs[column])
        if states == 1:
            for i, shift in enumerate(shifts, begin):
                codes[i] = with_low_bits(codes[i], shift, stream) + centre
        runs_done = begin // RUN + 1
        if runs_done // (runs_done & -runs_done) in (1, 3):  # 2^k or 3 * 2^k
            for table in itertools.chain(*tables):
                table.rebuild()
    assert stream.state == LOWEST
    return codes


def with_low_bits(code: int, shift: int, stream: Stream) -> int:
    return (code << shift) + stream.bits(shift) - ((1 << shift) >> 1)


@dataclass
class Lines:
    """What the header says of rows or of columns."""

    residual_class: int = 48
    slope: int = 0
    residuals: list[int] = field(default_factory=list)

    def classes(self, count: int, factors: Sequence[int]) -> list[int]:
        predicted = [self.slope * factor >> 6 for factor in factors] or [0] * count
        return [min(max(p + r, -4096), 4095) for p, r in zip(predicted, self.residuals or [0] * count, strict=True)]


def decode_codes(
    data: bytes,
    rows: int,
    cols: int,
    row_factors: Sequence[int] = (),
    col_factors: Sequence[int] = (),
    states: int = 1,
) -> list[int]:
    """Codes [rows * cols] in row-major order."""
    if rows * cols == 0:
        return []
    take, rest = _reader(data)
    flags = take()
    centre = _number(take)
    centre = centre >> 1 ^ -(centre & 1)
    base = _signed(take() | take() << 8, 16)
    described = [Lines(take(), _signed(take(), 8)) if flags >> bit & 1 else Lines() for bit in (6, 7)]
    counts = [count if lines.residual_class < 48 else 0 for lines, count in zip(described, (rows, cols), strict=True)]
    residual_bytes = _number(take) if sum(counts) else 0
    unit = 1 if states == 1 else cols
    units = rows * cols // unit
    streams = min(-(-rows * cols >> (12 + (flags & 15))), units)
    lengths = [_number(take) for _ in range(streams - 1)]

    data = rest()
    residual_classes = [described[0].residual_class] * counts[0] + [described[1].residual_class] * counts[1]
    residuals = decode_stream(data[:residual_bytes], residual_classes, 256) if residual_bytes else []
    described[0].residuals, described[1].residuals = residuals[: counts[0]], residuals[counts[0] :]
    row_classes = described[0].classes(rows, row_factors)
    col_classes = described[1].classes(cols, col_factors)
    classes = [min(max(base + r + c, 0), 239) for r in row_classes for c in col_classes]

    data, begin = data[residual_bytes:], 0
    codes: list[int] = []
    for i, length in enumerate([*lengths, len(data) - sum(lengths)]):
        size = (units // streams + (i < units % streams)) * unit
        weight = 1 << (2 + 2 * (flags >> 4 & 3))
        run = classes[len(codes) : len(codes) + size]
        codes += decode_stream(data[begin : begin + length], run, weight, states, col_factors or [0] * cols, centre)
        begin += length
    return codes


def _reader(data: bytes) -> tuple[Callable[[], int], Callable[[], bytes]]:
    """Takes the next byte; all bytes not yet taken."""
    numbers = iter(data)
    return lambda: next(numbers), lambda: bytes(numbers)


def _number(take: Callable[[], int]) -> int:
    """Seven bits a byte, lowest first, until a byte below 128."""
    byte = take()
    return byte if byte < 128 else (byte & 127) + (_number(take) << 7)


def _signed(value: int, bits: int) -> int:
    return value - (value >> (bits - 1) << bits)
