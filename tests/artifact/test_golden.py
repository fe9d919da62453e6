"""Golden files: the good ones give their values, each bad one its rule, and FORMAT.md names every rule."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pygolf import _core

GOLDEN = Path(__file__).parent.parent / "golden"
BAD = sorted(GOLDEN.glob("bad/*.golf"))


def test_committed_files_are_what_the_maker_makes(golden: ModuleType) -> None:
    files = golden.golden_files()
    assert {name for name in files if name.startswith("bad/")} == {f"bad/{path.name}" for path in BAD}
    for name, content in files.items():
        assert (GOLDEN / name).read_bytes() == content, name


def test_file_made_by_hand_gives_its_values(golden: ModuleType) -> None:
    reader = _core.ArtifactReader(GOLDEN / "good/made_by_hand.golf")
    assert reader.manifest == '{"made_by": "make_golden.py"}'
    rows = np.array(golden.CODES_2x5, np.float32) * np.array(golden.SCALES_2, np.float32)[:, None]
    dense = np.array(golden.NUMBERS_2x3, np.float32)
    names = [tensor.name for tensor in reader.tensors]
    assert names[:3] == ["rows.raw", "rows.bitpack", "rows.bytes-zstd"]
    assert names[3:] == ["dense.float32", "dense.float16.é", "dense.bfloat16", "factors.raw", "factors.trellis"]
    for name in names[:6]:
        np.testing.assert_array_equal(reader.dequantize(name), rows if name in names[:3] else dense)
    octaves = (np.array(golden.ROW_LOGS_2)[:, None] + golden.COL_LOGS_5) / 16
    units = (golden.STEP * 2**octaves).astype(np.float32)
    np.testing.assert_array_equal(reader.dequantize("factors.raw"), np.array(golden.CODES_2x5, np.float32) * units)
    np.testing.assert_array_equal(reader.dequantize("factors.trellis"), np.array(golden.LEVELS_2x5, np.float32) * units)
    assert (reader.row_logs("factors.raw").tolist(), reader.col_logs("factors.raw").tolist()) == (
        golden.ROW_LOGS_2,
        golden.COL_LOGS_5,
    )
    reader.check()


@pytest.mark.parametrize(("file", "fixture"), [("written_by_0.1", "fill"), ("factors_by_0.1", "fill_factors")])
def test_files_of_the_first_release_give_their_values(file: str, fixture: str, request: pytest.FixtureRequest) -> None:
    values = request.getfixturevalue(fixture)(_core.ArtifactWriter("{}"))
    reader = _core.ArtifactReader(GOLDEN / f"good/{file}.golf")
    assert [tensor.name for tensor in reader.tensors] == list(values)
    for name, expected in values.items():
        np.testing.assert_array_equal(reader.dequantize(name), expected)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_file_is_refused_with_its_rule(path: Path) -> None:
    rule, error, _ = path.name.split(".", 2)
    with pytest.raises(_core.PygolfError) as caught:
        _core.ArtifactReader(path).check()
    assert type(caught.value).__name__ == error
    assert str(caught.value).startswith(f"[{rule}] {path}: ")


def test_every_rule_has_a_bad_file() -> None:
    text = (GOLDEN.parent.parent / "csrc/FORMAT.md").read_text()
    rules = set(re.findall(r"^\| (A\d+) \|", text, re.MULTILINE))
    assert rules == {path.name.split(".")[0] for path in BAD} | {"A1"}
    with pytest.raises(_core.IoError, match=r"\[A1\].*missing.golf: No such file"):
        _core.ArtifactReader(GOLDEN / "missing.golf")
