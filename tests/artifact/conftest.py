"""The golden maker as a module, and an artifact with one tensor of every kind."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from entropy_reference import trellis_levels

from pygolf._core import ArtifactWriter

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="session")
def golden() -> ModuleType:
    """tests/golden/make_golden.py, the format written down a second time."""
    spec = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_golden"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def noise(count: int, limit: int) -> np.ndarray:
    """Bell-shaped integers within +-limit, the same on every machine and numpy, int64 [count]."""
    position = np.arange(3 * count, dtype=np.uint64).reshape(3, count)
    uniform = (position * 2_654_435_761 % 2**32 * 40_503 % 2**32) >> 16  # 0 .. 65535
    total: np.ndarray = uniform.astype(np.int64).sum(axis=0)
    return total * (2 * limit + 1) // (3 * 65_536) - limit


def factor_values(
    codes_RC: np.ndarray, row_logs_R: np.ndarray, col_logs_C: np.ndarray, step: np.float32, states: int
) -> np.ndarray:
    """Values of a `factors` tensor by csrc/FORMAT.md, float32 [R, C]."""
    sixteenths = np.array([2 ** (k / 16) for k in range(16)], np.float32)
    logs_RC = row_logs_R[:, None].astype(int) + col_logs_C
    units_RC = step * np.ldexp(sixteenths[logs_RC % 16], logs_RC // 16)
    levels_RC = np.array([trellis_levels(row, col_logs_C.tolist(), states) for row in codes_RC.tolist()])
    return levels_RC.astype(np.float32) * units_RC


@pytest.fixture
def fill() -> Callable[[ArtifactWriter], dict[str, np.ndarray]]:
    """Adds one tensor of every encoding, dtype and codec; returns name -> float32 values."""

    def add_all(writer: ArtifactWriter) -> dict[str, np.ndarray]:
        values = {}
        scales = np.array([0.0, 0.5, 6e-8, 0.0123, 3.0], np.float16)
        for bits, codec in ((6, "bytes-zstd"), (3, "bitpack"), (8, "raw"), (5, "entropy")):
            codes = noise(5 * 101, 2 ** (bits - 1) - 1).astype(np.int8).reshape(5, 101)
            writer.add_rows(f"rows.{codec}", codes, scales, bits=bits, codec=codec)
            values[f"rows.{codec}"] = codes.astype(np.float32) * scales.astype(np.float32)[:, None]
        numbers = noise(90, 2000).astype(np.float32) / 512
        for codec in ("zstd", "raw"):
            half = numbers.astype(np.float16)
            bfloat16 = (numbers.view(np.uint32) >> 16).astype(np.uint16)
            writer.add_dense(f"float32.{codec}", numbers.reshape(2, 3, 3, 5), "float32", codec)
            writer.add_dense(f"float16.{codec}", half.reshape(6, 15), "float16", codec)
            writer.add_dense(f"bfloat16.{codec}", bfloat16, "bfloat16", codec)
            values[f"float32.{codec}"] = numbers.reshape(2, 3, 3, 5)
            values[f"float16.{codec}"] = half.astype(np.float32).reshape(6, 15)
            values[f"bfloat16.{codec}"] = (bfloat16.astype(np.uint32) << 16).view(np.float32)
        return values

    return add_all


@pytest.fixture
def fill_factors() -> Callable[[ArtifactWriter], dict[str, np.ndarray]]:
    """Adds tensors of encoding `factors` with every trellis and codec; returns name -> float32 values."""

    def add_all(writer: ArtifactWriter) -> dict[str, np.ndarray]:
        row_logs = (2 * noise(67, 20) - 90).astype(np.int16)
        col_logs = noise(70, 20).astype(np.int16)
        values = {}
        for states, codec, limit in ((1, "entropy", 9), (4, "entropy", 300), (8, "entropy", 5), (8, "zstd", 40)):
            codes = noise(67 * 70, limit).astype(np.int16).reshape(67, 70)
            name = f"factors.{states}.{codec}"
            writer.add_factors(name, codes, row_logs, col_logs, step=0.0375, states=states, codec=codec)
            values[name] = factor_values(codes, row_logs, col_logs, np.float32(0.0375), states)
        return values

    return add_all
