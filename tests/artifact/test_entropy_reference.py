"""The pure-Python decoder and the C++ coder agree on the golden files, whose codes both tests make by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from entropy_reference import decode_codes

from pygolf._core import ArtifactReader

GOLDEN = Path(__file__).parents[1] / "golden"
FACTORS = GOLDEN / "good/factors_by_0.1.golf"


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


@pytest.mark.parametrize(("states", "scale"), [(4, 30), (8, 3000)])
def test_trellises_of_two_streams(states: int, scale: int) -> None:
    decoded = decode_codes(
        (GOLDEN / f"entropy_trellis{states}.bin").read_bytes(), 73, 64, col_factors=range(64), states=states
    )
    assert decoded == varied_codes(73, 64, scale, seed=13)


def test_codes_of_many_bits() -> None:
    decoded = decode_codes((GOLDEN / "entropy_wide.bin").read_bytes(), 7, 40)
    assert decoded == varied_codes(7, 40, scale=300_000, seed=12)


def test_the_small_tensor_of_the_specification() -> None:
    data = bytes.fromhex("06 06 1f00 36386f272f865201 7f39304f 04")
    assert decode_codes(data, 2, 6) == [0, 1, -1, 2, -2, 3, 0, 0, 40, -1, 0, -3]


@pytest.mark.parametrize("states", [1, 4, 8])
def test_factors_tensors_decode_from_the_file_alone(states: int) -> None:
    reader = ArtifactReader(FACTORS)
    name = f"factors.{states}.entropy"
    (tensor,) = (tensor for tensor in reader.tensors if tensor.name == name)
    rows, cols = tensor.shape
    content = FACTORS.read_bytes()
    stored = {role: content[offset : offset + size] for role, _, offset, size, _ in tensor.sections}
    assert [codec for _, codec, _, _, _ in tensor.sections] == ["entropy"] * 3
    row_logs, col_logs = reader.row_logs(name), reader.col_logs(name)
    for role, logs, step in (("row factors", row_logs, 2), ("column factors", col_logs, 1)):
        assert stored[role][0] == step
        factors = [step * code for code in decode_codes(stored[role][1:], 1, len(logs))]
        assert factors == (logs - logs.min()).tolist()
    codes = decode_codes(stored["codes"], rows, cols, row_logs.tolist(), col_logs.tolist(), states)
    assert codes == reader.codes(name).ravel().tolist()
