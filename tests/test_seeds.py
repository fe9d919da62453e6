"""`run --seeds` makes one run a seed, and the same command goes on with them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pygolf.cli import main
from pygolf.commands.seeds import take_seeds
from pygolf.errors import ConfigError
from pygolf.files import read_json


def test_seeds_are_taken_out_of_the_arguments() -> None:
    assert take_seeds(["tiny", "--seeds", "1337,42", "--name", "x"]) == ((1337, 42), ["tiny", "--name", "x"])
    assert take_seeds(["tiny", "--seeds=7"]) == ((7,), ["tiny"])
    assert take_seeds(["tiny", "--seed", "7"]) == ((), ["tiny", "--seed", "7"])


@pytest.mark.parametrize(("text", "message"), [("1,x", "whole numbers"), ("", "whole numbers"), ("3,4,3", "twice")])
def test_broken_lists_are_errors(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        take_seeds(["--seeds", text])


def test_one_run_a_seed_and_no_run_twice(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pygolf(*options: str) -> str:
        arguments = ["run", "tiny", "--runs", str(tmp_path), "--data.path", str(data_folder), *options]
        monkeypatch.setattr(sys, "argv", ["pygolf", *arguments, "--data.val-tokens", "513", "--runtime.threads", "1"])
        main()
        return capsys.readouterr().out

    short = ["--train.max-steps", "2", "--adapt.source", "none"]
    assert "all seeds" in pygolf("--seeds", "5", *short)
    before = (tmp_path / "tiny-5" / "model.golf").stat().st_mtime_ns
    text = pygolf("--seeds", "5,6", *short)
    assert "standard deviation" in text
    assert (tmp_path / "tiny-5" / "model.golf").stat().st_mtime_ns == before
    reports = [read_json(tmp_path / f"tiny-{seed}" / "report.json") for seed in (5, 6)]
    assert [r["seed"] for r in reports] == [5, 6]
    assert reports[0]["val_loss"] != reports[1]["val_loss"]
    with pytest.raises(SystemExit, match="2"):
        pygolf("--seeds", "5,6", "--train.max-steps", "3", "--adapt.source", "none")
    assert "other settings of 'train'" in capsys.readouterr().err
