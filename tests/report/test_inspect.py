"""The table of `pygolf inspect`, and the bound that it compares the codes with."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pygolf._core import ArtifactReader, ArtifactWriter
from pygolf.report.inspect import artifact_table, class_entropy_bytes, quantizers

NEXT_8 = [[0, 2], [2, 0], [4, 6], [6, 4], [5, 7], [7, 5], [1, 3], [3, 1]]


@pytest.fixture
def reader(tmp_path: Path) -> ArtifactReader:
    """Bell-shaped codes whose spread follows rows and columns, in every encoding."""
    rng = np.random.default_rng(0)
    row_logs, col_logs = rng.integers(-20, 20, (2, 1024)).astype(np.int16)
    spreads = 3 * 2 ** ((row_logs[:, None] + col_logs) / 16)
    codes = rng.normal(0, spreads).round().astype(np.int16)
    writer = ArtifactWriter("{}")
    for states in (1, 8):
        writer.add_factors(f"factors.{states}", codes, row_logs, col_logs, step=0.013, states=states)
    writer.add_rows("rows", codes.clip(-31, 31).astype(np.int8), np.ones(1024, np.float16), codec="entropy")
    writer.add_dense("dense", np.ones(5, np.float16))
    writer.write(tmp_path / "model.golf")
    return ArtifactReader(tmp_path / "model.golf")


def test_codes_are_stored_near_their_bound(reader: ArtifactReader) -> None:
    for tensor in reader.tensors[:3]:
        bound = class_entropy_bytes(reader.codes(tensor.name), quantizers(reader, tensor))
        assert 0.995 < bound / tensor.sections[-1][3] < 1.005


def test_bound_is_the_entropy_of_each_class_and_quantizer() -> None:
    codes = np.array([[1, -1] * 8, [40, -40] * 8], np.int16)
    assert class_entropy_bytes(codes, np.zeros((2, 16), np.int64)) == pytest.approx(32 / 8)
    assert class_entropy_bytes(codes, np.tile([0, 1], (2, 8))) == pytest.approx(0)
    assert class_entropy_bytes(np.full((3, 5), -7, np.int16), np.zeros((3, 5), np.int64)) == 0


def test_quantizers_follow_the_states(reader: ArtifactReader) -> None:
    codes, logs = reader.codes("factors.8"), reader.col_logs("factors.8")
    expected = np.zeros_like(codes)
    state = 0
    for column, log in enumerate(logs):
        if log % 2 == 0:
            expected[7, column] = state >= 4
            state = NEXT_8[state][codes[7, column] & 1]
    np.testing.assert_array_equal(quantizers(reader, reader.tensors[1])[7], expected[7])


def test_table_names_codec_and_sizes(reader: ArtifactReader) -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(artifact_table(reader))
    lines = [line.split() for line in console.export_text().splitlines()]
    (row,) = (line for line in lines if "factors.8" in line)
    tensor = reader.tensors[1]
    assert f"{tensor.stored_bytes:,}" in row
    assert f"{8 * tensor.stored_bytes / 1024**2:.3f}" in row
    (total,) = (line for line in lines if "codes" in line and "all" in line)
    assert f"{sum(t.sections[-1][3] for t in reader.tensors[:3]):,}" in total
