"""The command line as a user meets it: what it prints, writes and returns."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pygolf.cli import COMMANDS, main
from pygolf.data.find import find_shards
from pygolf.pipeline import Run

Pygolf = Callable[..., str]


@pytest.fixture
def pygolf(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pygolf:
    """Runs a command line in this process and returns what it printed; `status` is the expected exit status."""

    def call(*arguments: str | Path, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["pygolf", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        assert code == status, captured.err
        return captured.out + captured.err

    return call


@pytest.fixture
def folder(finished: Run, tmp_path: Path) -> Path:
    """A copy of a finished run's folder."""
    return Path(shutil.copytree(finished.folder, tmp_path / "copy"))


def test_help_names_every_command(pygolf: Pygolf) -> None:
    text = pygolf("--help")
    assert all(f"  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str, pygolf: Pygolf) -> None:
    assert "usage: pygolf" in pygolf(command, "--help")


def test_unknown_commands_and_options_are_errors(pygolf: Pygolf) -> None:
    assert "no command 'trian'" in pygolf("trian", status=2)
    assert "--nonsense" in pygolf("run", "tiny", "--nonsense", status=2)
    assert "usage" in pygolf(status=2)


def test_errors_are_one_line_that_says_what_to_do(pygolf: Pygolf, tmp_path: Path) -> None:
    text = pygolf("run", "--resume", tmp_path, status=2)
    assert text.startswith("error: ")
    assert "run folder" in text
    assert len(text.strip().splitlines()) == 1
    assert "without other options" in pygolf("run", "--resume", tmp_path, "--seed", "3", status=2)


def test_inspect_lists_checks_and_prints_the_manifest(pygolf: Pygolf, finished: Run) -> None:
    text = pygolf("inspect", "--check", finished.artifact)
    assert "every checksum holds and all 40 tensors decode" in text
    assert "entropy" in text
    manifest = json.loads(pygolf("inspect", "--manifest", finished.artifact))
    assert manifest["model"]["layers"] == 3


def test_inspect_refuses_a_damaged_file(pygolf: Pygolf, folder: Path) -> None:
    content = bytearray((folder / "model.golf").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.golf").write_bytes(content)
    assert "error: [A8]" in pygolf("inspect", "--check", folder / "model.golf", status=2)


def test_score_gives_the_figures_of_the_report(
    pygolf: Pygolf, finished: Run, data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "score.json"
    options = ["--stride", finished.config.score.stride, "--val-tokens", "1025", "--device", "cpu"]
    text = pygolf("score", finished.artifact, "--data", data_folder, "--json-out", out, *map(str, options))
    report = json.loads((finished.folder / "report.json").read_text())
    figures = json.loads(out.read_text())
    for name in ("bpb", "bpb_plain", "tokens_scored", "bytes_scored", "seen"):
        assert figures[name] == report[name], name
    assert "clean: no scored token was trained on" in text


def test_generate_is_repeatable_and_begins_with_the_prompt(pygolf: Pygolf, finished: Run) -> None:
    arguments = ("generate", finished.artifact, "--prompt", "It was", "--tokens", "12", "--device", "cpu")
    first = pygolf(*arguments)
    assert first.startswith("It was")
    assert pygolf(*arguments) == first
    assert pygolf(*arguments, "--seed", "7") != first


def test_stages_alone_redo_their_part(pygolf: Pygolf, folder: Path) -> None:
    before = (folder / "model.golf").read_bytes()
    pygolf("quantize", folder, "--method", "record", "--matrix-bits", "3", "--table-bits", "3")
    assert len((folder / "model.golf").read_bytes()) < 0.8 * len(before)
    assert "matrix_bits = 3" in (folder / "config.toml").read_text()
    pygolf("adapt", folder, "--source", "none")
    stages = json.loads((folder / "stages.json").read_text())
    assert list(stages) == ["train", "adapt"]  # what lay behind is no longer valid
    assert "bits per byte" in pygolf("run", "--resume", folder)


def test_finished_training_is_not_done_again(pygolf: Pygolf, folder: Path) -> None:
    before = (folder / "trained.safetensors").stat().st_mtime_ns
    assert "training is done" in pygolf("train", "--resume", folder)
    assert (folder / "trained.safetensors").stat().st_mtime_ns == before


def test_shard_makes_a_data_folder(pygolf: Pygolf, tmp_path: Path, data_folder: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": f"Document {i}: naïve café 🙂\tand  more."}) + "\n" for i in range(50)))
    options = ["--tokenizer", data_folder / "tokenizer.model", "--val-fraction", "0.2", "--workers", "1"]
    assert "documents: 50" in pygolf("shard", text, "--out", tmp_path / "data", *options)
    assert find_shards(tmp_path / "data", "train")
    assert find_shards(tmp_path / "data", "val")
