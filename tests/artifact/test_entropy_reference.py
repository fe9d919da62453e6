"""The pure-Python decoder and the C++ coder agree on the golden files, whose codes both tests make by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from entropy_reference import decode_codes

GOLDEN = Path(__file__).parents[1] / "golden"


def draws(seed: int) -> Iterator[int]:
    """The generator of tests/cpp/entropy_cases.hpp."""
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield state >> 32


def line_scale(line: int, lines: int) -> int:
    return 64 + 192 * line // lines


def varied_codes(rows: int, cols: int, scale: int, seed: int) -> list[int]:
    random = draws(seed)
    codes = []
    for i in range(rows):
        for j in range(cols):
            bell = sum(sum(next(random).to_bytes(4, "little")) for _ in range(2)) - 1020
            codes.append((bell * scale * line_scale(i, rows) * line_scale(j, cols) + 2**25) >> 26)
    return codes


def test_factors_residuals_and_two_streams() -> None:
    factors = [-96 if line_scale(i, 72) < 128 else -112 for i in range(72)]
    decoded = decode_codes((GOLDEN / "entropy_varied.bin").read_bytes(), 72, 64, row_factors=factors)
    assert decoded == varied_codes(72, 64, scale=30, seed=11)


def test_codes_of_many_bits() -> None:
    decoded = decode_codes((GOLDEN / "entropy_wide.bin").read_bytes(), 7, 40)
    assert decoded == varied_codes(7, 40, scale=300_000, seed=12)


def test_the_small_tensor_of_the_specification() -> None:
    data = bytes.fromhex("06 06 1f00 36386f272f865201 7f39304f 04")
    assert decode_codes(data, 2, 6) == [0, 1, -1, 2, -2, 3, 0, 0, 40, -1, 0, -3]
