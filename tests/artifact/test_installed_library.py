"""The C++ library as its users get it: installed, found by find_package, and read with by the example program."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pygolf._core import ArtifactReader, ArtifactWriter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parent.parent.parent


def run(*command: str | Path) -> str:
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """csrc/examples/inspect_artifact, built against a library installed to a folder of its own."""
    if not shutil.which("cmake") or not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("no cmake or no C++ compiler")
    work = tmp_path_factory.mktemp("installed")
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    plain = ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0"]  # compiles in half the time
    run("cmake", "-S", ROOT, "-B", work / "library", *generator, *plain, "-DPYGOLF_BUILD_PYTHON=OFF")
    run("cmake", "--build", work / "library", "--parallel", "2")
    run("cmake", "--install", work / "library", "--prefix", work / "prefix")
    prefix = f"-DCMAKE_PREFIX_PATH={work / 'prefix'}"
    run("cmake", "-S", ROOT / "csrc/examples", "-B", work / "examples", *generator, *plain, prefix)
    run("cmake", "--build", work / "examples")
    return work / "examples" / "inspect_artifact"


def test_example_reads_what_python_wrote(
    program: Path, tmp_path: Path, fill: Callable[..., Any], fill_factors: Callable[..., Any]
) -> None:
    path = tmp_path / "model.golf"
    writer = ArtifactWriter('{"made": "by a test"}')
    fill(writer)
    fill_factors(writer)
    writer.write(path)
    reader = ArtifactReader(path)
    listing = run(program, path)
    assert listing.startswith('{"made": "by a test"}\n')
    for line, tensor in zip(listing.splitlines()[1:], reader.tensors, strict=True):
        assert line.split()[0] == tensor.name
        assert line.endswith(f" {tensor.codec}".ljust(11) + f" {tensor.stored_bytes:10d} bytes")
        run(program, path, tensor.name, tmp_path / "values.f32")
        values = np.fromfile(tmp_path / "values.f32", "<f4").reshape(tensor.shape)
        np.testing.assert_array_equal(values, reader.dequantize(tensor.name))
    printed = [float(line) for line in run(program, path, "float32.zstd").splitlines()]
    np.testing.assert_array_equal(np.array(printed, np.float32), reader.dense("float32.zstd").ravel())


def test_example_reports_errors(program: Path, tmp_path: Path) -> None:
    (tmp_path / "text.golf").write_text("no artifact")
    result = subprocess.run([program, tmp_path / "text.golf"], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith(f"inspect_artifact: [A2] {tmp_path / 'text.golf'}: does not begin with")
