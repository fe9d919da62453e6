"""Record folders: what they hold, and which runs they refuse."""

from __future__ import annotations

import io
import json
import shutil
import statistics
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pygolf.errors import DataError, PygolfError
from pygolf.report.submission import Author, CheckedRun, read_checked, write_submission

AUTHOR = Author("A. Golfer", "golfer", "Tiny record", "2026-01-31")
RULES = [
    {"rule": "bytes", "status": "pass", "figure": "165,000 of 16,000,000"},
    {"rule": "significance", "status": "n/a", "figure": "one run"},
]


@pytest.fixture
def pair(full: Path) -> list[CheckedRun]:
    """Two runs of one recipe; only the seed and the score differ."""
    report = json.loads((full / "report.json").read_text())
    report |= {"text_sha256": "ab" * 32, "tokenizer_sha256": "cd" * 32, "artifact_sha256": "ef" * 32}
    other = full.with_name("tiny-42")
    shutil.copytree(full, other, dirs_exist_ok=True)
    for folder, seed, bpb in ((full, 1337, 3.25), (other, 42, 3.27)):
        (folder / "report.json").write_text(json.dumps({**report, "seed": seed, "bpb": bpb}))
    return [read_checked(folder, RULES) for folder in (full, other)]


def change(run: CheckedRun, **values: Any) -> CheckedRun:
    return CheckedRun(run.folder, {**run.report, **values}, run.rules)


def test_a_record_folder_says_what_the_runs_found(pair: list[CheckedRun], tmp_path: Path) -> None:
    out = tmp_path / "record"
    figures = write_submission(pair, out, AUTHOR)
    assert json.loads((out / "submission.json").read_text()) == figures
    assert {name: figures[name] for name in asdict(AUTHOR)} == asdict(AUTHOR)
    assert figures["val_bpb"] == pytest.approx(3.26)
    assert figures["val_bpb_std"] == pytest.approx(statistics.stdev([3.25, 3.27]))
    assert figures["seeds"] == [42, 1337]
    assert figures["bytes_total"] == pair[0].report["artifact_bytes"] + figures["bytes_code"]
    assert sorted(p.name for p in out.iterdir()) == [
        "README.md",
        "code.tar.zst",
        "config.toml",
        "report_seed1337.json",
        "report_seed42.json",
        "requirements.txt",
        "submission.json",
        "train_seed1337.log",
        "train_seed42.log",
    ]
    text = (out / "README.md").read_text()
    for part in (
        "Tiny record",
        "3.2600 ± 0.0141 (n = 2)",
        "| 42 | 3.2700 |",
        "| bytes | pass | 165,000 of 16,000,000 |",
    ):
        assert part in text, part
    log = (out / "train_seed42.log").read_text()
    assert log.count("stage:train step:") == 20
    assert "bpb:3.27" in log
    torch_line = (out / "requirements.txt").read_text().splitlines()[0]
    assert torch_line == f"torch=={pair[0].report['versions']['torch'].split('+')[0]}"


def test_the_code_is_there_as_it_was_counted(pair: list[CheckedRun], tmp_path: Path) -> None:
    figures = write_submission(pair[:1], tmp_path / "record", AUTHOR)
    archive = (tmp_path / "record" / "code.tar.zst").read_bytes()
    assert len(archive) == figures["bytes_code"]
    with tarfile.open(fileobj=io.BytesIO(zstandard.ZstdDecompressor().decompressobj().decompress(archive))) as tar:
        assert "pygolf/score/sliding.py" in tar.getnames()


def test_a_broken_rule_and_a_seen_score_are_no_submission(pair: list[CheckedRun]) -> None:
    folder = pair[0].folder
    with pytest.raises(DataError, match=r"breaks the rules.*: causality \(3 probabilities changed\)"):
        read_checked(folder, [*RULES, {"rule": "causality", "status": "fail", "figure": "3 probabilities changed"}])
    for seen, message in ((True, r"seen \(7 tokens\)"), (None, "unknown")):
        (folder / "report.json").write_text(json.dumps({**pair[0].report, "seen": seen, "seen_tokens": 7}))
        with pytest.raises(DataError, match=message):
            read_checked(folder, RULES)
    (folder / "report.json").unlink()
    with pytest.raises(DataError, match="finish the run first"):
        read_checked(folder, RULES)


def test_only_seeds_may_differ(pair: list[CheckedRun], tmp_path: Path) -> None:
    first, second = pair
    config = {**second.report["config"], "train": {**second.report["config"]["train"], "matrix_lr": 1.0}}
    cases = {
        r"differ in \[train\]": [first, change(second, config=config)],
        "differ in text_sha256": [first, change(second, text_sha256="other")],
        r"seeds \[1337, 1337\]": [first, change(second, seed=1337)],
        "packed with 5 bytes of code": [change(first, code_bytes=5), change(second, code_bytes=5)],
    }
    for message, runs in cases.items():
        with pytest.raises(DataError, match=message):
            write_submission(runs, tmp_path / "record", AUTHOR)
    assert not (tmp_path / "record").exists()


def test_nothing_is_overwritten(pair: list[CheckedRun], tmp_path: Path) -> None:
    write_submission(pair, tmp_path / "record", AUTHOR)
    with pytest.raises(PygolfError, match="not empty"):
        write_submission(pair, tmp_path / "record", AUTHOR)
