"""A run folder with everything that a report can show."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pygolf.pipeline import Run
from pygolf.score.documents import load_documents, save_documents

HOSTILE = '</script><script>console.error("x")</script>"\'&\u2028 naïve 🙂'


@pytest.fixture
def full(finished: Run, tmp_path: Path) -> Path:
    """A copy of a finished run, with more in it than so small a run finds out."""
    folder = Path(shutil.copytree(finished.folder, tmp_path / "tiny-1337"))
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    report["positions"] = [{"begin": 2 * i, "end": 2 * i + 2, "bpb": 3 + 1 / (i + 1)} for i in range(32)]
    report["positions"][5]["bpb"] = None
    report["samples"] = ["Once upon a time", HOSTILE]
    report["adaptive"] = {"mode": "score-first", "bpb": report["bpb"] - 0.01}
    report["worst_documents"] = [{"document": 3, "bytes": 1234, "bpb": 4.2, "text": HOSTILE}]
    (folder / "report.json").write_text(json.dumps(report))
    sizes = np.arange(150, 400)
    nll = sizes * math.log(2) * np.linspace(2.5, 4.0, len(sizes))
    save_documents(folder, replace(load_documents(folder), bytes=sizes, nll={"nll": nll}))
    rules = [{"rule": "bytes", "status": "pass", "figure": "1 of 2"}, {"rule": "x", "status": "n/a", "figure": "<b>"}]
    (folder / "verify.json").write_text(json.dumps({"results": rules}))
    sibling = folder.with_name("tiny-42")
    sibling.mkdir()
    (sibling / "report.json").write_text(json.dumps({**report, "seed": 42, "bpb": report["bpb"] + 0.02}))
    return folder
