"""Every command and program that README and docs show is run as it stands, but for what the tables here say.

A page's blocks run in order, in one folder, as a reader would type them.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import pygolf as pygolf_package
from pygolf.cli import COMMANDS, main
from pygolf.commands import runs
from pygolf.config import RunConfig
from pygolf.data import bundled
from pygolf.data.bundled import bundled_texts
from pygolf.pipeline import Run
from pygolf.presets import PRESETS, tiny

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

ELSEWHERE = {
    r"pip install ": (".ci/run", "pip install"),
    r"pytest$": (".ci/run", "pytest"),
    r"bash \.ci/run$": (".ci/run", "bash .ci/run"),
    r"cmake ": ("tests/artifact/test_installed_library.py", '"cmake", "--install"'),
    r"build/examples/inspect_artifact ": ("tests/artifact/test_installed_library.py", '"inspect_artifact"'),
    r"pygolf download sp1024 --out data$": ("tests/data/test_download_server.py", '"download", "sp1024"'),
    r"tensorboard --logdir runs$": ("tests/report/test_live.py", "EventAccumulator"),
}
"""Commands that another test runs: pattern -> file, and what stands there."""

TOO_LARGE = ("--train.", "--data.val-tokens")
"""Options of commands of the record's size: parsed, but left out when the command runs with the tiny model."""

MISSING_DATA = ("TRAIN.txt.xz", "WEIGHTS.safetensors")
"""Commands on files that only the reader has are parsed, not run."""

NEEDS_DATA = ("formats.md", "honesty.md")
"""Pages that begin with a data folder, and with the finished run that quickstart.md has made."""


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        yield Block(found[1], found[2])


def commands(block: Block) -> list[str]:
    """A block's command lines: joined where they are continued, split at &&, without comments and options in []."""
    if block.language not in ("", "bash", "console"):
        return []
    text = re.sub(r"\s*\\\n\s*", " ", block.text)
    lines = [part.strip() for line in text.splitlines() for part in re.sub(r"\s+# .*", "", line).split("&&")]
    first = ("pip", "pygolf", "python", "pytest", "torchrun", "cmake", "build/examples", "bash", "tensorboard")
    if block.language == "" and not all(line.startswith(first) for line in lines):
        return []  # a drawing or a listing
    return [re.sub(r"\s*\[[^]]*\]$", "", line) for line in lines if line]


def shown(page: Path) -> list[str]:
    return [command for block in blocks(page) for command in commands(block)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's folder with some text, and presets that take a second instead of minutes."""
    paragraphs = [p for text in bundled_texts("train")[:60] for p in text.split("\n\n") if p]
    (tmp_path / "my_text").mkdir()
    lines = "".join(json.dumps({"text": p}) + "\n" for p in paragraphs)
    (tmp_path / "my_text/paragraphs.jsonl").write_text(lines, encoding="utf-8")
    base = tiny()
    quick = dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, val_tokens=1025),
        train=dataclasses.replace(base.train, max_steps=3),
        adapt=dataclasses.replace(base.adapt, epochs=1),
    )
    for name in list(PRESETS):
        monkeypatch.setitem(PRESETS, name, lambda name=name: dataclasses.replace(quick, name=name))
    monkeypatch.setattr(bundled, "bundled_texts", lambda split: bundled_texts("val"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pygolf(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pygolf", *arguments])
    status: object = 0
    try:
        main()
    except SystemExit as stop:
        status = stop.code or 0
    assert status == 0, f"pygolf {shlex.join(arguments)} ended with status {status}"


def parse(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads the command line of `run` without running anything: unknown options and values are errors."""
    found: list[RunConfig] = []
    with monkeypatch.context() as patch:
        patch.setattr(runs, "_work", lambda config, *_: found.append(config))
        pygolf(arguments, patch)
    assert len(found) == 1


def small(arguments: list[str]) -> list[str]:
    """The command without options that make it large."""
    kept: list[str] = []
    pairs = iter(arguments)
    for argument in pairs:
        if argument.startswith(TOO_LARGE) and "matrix-lr" not in argument:
            next(pairs)
        else:
            kept.append(argument)
    return kept


def run_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command)
    if words[0] == "torchrun":  # tests/test_ranks.py starts it
        parse(words[words.index("pygolf") + 1 :], monkeypatch)
    elif words[0] == "python" and words[1].startswith("benchmarks/"):
        check_options(words[1:])
    elif words[0] != "pygolf":
        pytest.fail(f"no rule how to run {command!r}; add one to this file")
    elif any(name in command for name in MISSING_DATA):
        assert words[1] in COMMANDS
    else:
        if words[1] == "run" and words[2] in PRESETS and "--seeds" not in words and "--help" not in words:
            parse(words[1:], monkeypatch)
        pygolf(small(words[1:]), monkeypatch)


def check_options(words: list[str]) -> None:
    """A benchmark takes the options that are shown."""
    done = subprocess.run([sys.executable, ROOT / words[0], "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for option in [word for word in words[1:] if word.startswith("--")]:
        assert option in done.stdout, f"{words[0]} has no option {option}"


def elsewhere(command: str) -> tuple[str, str] | None:
    return next((where for pattern, where in ELSEWHERE.items() if re.match(pattern, command)), None)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_run_in_order(
    page: Path, place: Path, data_folder: Path, finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page.name in NEEDS_DATA:
        shutil.copytree(data_folder, place / "data")
        shutil.copytree(finished.folder, place / "runs" / "tiny-finished")
    for command in shown(page):
        if page.name == "results.md" and command.startswith("pygolf run record"):
            parse(shlex.split(command)[1:], monkeypatch)  # on data that only the reader has
        elif elsewhere(command) is None:
            run_command(command, monkeypatch)


def test_what_runs_elsewhere_does() -> None:
    for file, text in ELSEWHERE.values():
        assert text in (ROOT / file).read_text(encoding="utf-8"), (file, text)
    every = [command for page in PAGES for command in shown(page)]
    assert len(every) > 40
    for pattern in ELSEWHERE:
        assert any(re.match(pattern, command) for command in every), f"no page shows {pattern}"


def example_model() -> dict[str, object]:
    """The model and batches that quantizer.md's reader has."""
    parts = [torch.nn.Sequential(torch.nn.Embedding(32, 16), torch.nn.Linear(16, 32)) for _ in range(2)]
    batches = [torch.arange(64) % 32, torch.arange(64) * 7 % 32]

    def my_loss(module: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(module(ids[:-1]), ids[1:], reduction="none")

    return {"pygolf": pygolf_package, "module": parts[0], "another": parts[1], "batches": batches, "my_loss": my_loss}


@pytest.mark.parametrize("page", [p for p in PAGES if "```python" in p.read_text()], ids=lambda page: page.name)
def test_python_of_a_page_runs(
    page: Path, place: Path, data_folder: Path, finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "record-deep", tiny)  # so that it is taken away again
    (place / "data").symlink_to(data_folder)
    (place / "runs").mkdir()
    (place / "runs" / "tiny").symlink_to(finished.folder)
    scope: dict[str, object] = {"__name__": page.stem, **example_model()}
    for block in blocks(page):
        if block.language == "python":
            exec(compile(block.text, page.name, "exec"), scope)


@pytest.mark.parametrize("page", [p for p in PAGES if "```cpp" in p.read_text()], ids=lambda page: page.name)
def test_cpp_of_a_page_compiles(page: Path, tmp_path: Path) -> None:
    compiler = shutil.which("g++") or pytest.skip("no g++")
    for block in blocks(page):
        if block.language != "cpp":
            continue
        includes = "".join(f"{line}\n" for line in block.text.splitlines() if line.startswith("#"))
        body = "".join(f"{line}\n" for line in block.text.splitlines() if not line.startswith("#"))
        program = block.text if "int main" in body else f"#include <cstdio>\n{includes}int main() {{\n{body}}}\n"
        (tmp_path / "program.cpp").write_text(program)
        command = [compiler, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", f"-I{ROOT / 'csrc/include'}"]
        done = subprocess.run([*command, tmp_path / "program.cpp"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
