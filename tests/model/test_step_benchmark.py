"""benchmarks/step.py runs on small models and prints what it promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "step.py"


def test_the_step_benchmark_compares_both_paths(tmp_path: Path) -> None:
    arguments = ["--preset", "tiny", "--windows", "2", "--microbatches", "1", "--rounds", "1"]
    command = [sys.executable, str(SCRIPT), *arguments, "--json", str(tmp_path / "step.json")]
    done = subprocess.run(command, env=os.environ, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fused: " in done.stdout
    result = json.loads((tmp_path / "step.json").read_text())["result"]
    assert result["ratios"]["fused"] == result["plain"]["ms"] / result["fused"]["ms"]
    # Two compilations of the same function: exact but for rounding (bf16's on a GPU).
    assert all(result[path]["gradient_error"] < 0.05 for path in ("plain", "fused"))
