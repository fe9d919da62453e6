"""A record folder of one or several runs (`pygolf submission`): what a reader needs to check a claim and repeat it.

README.md             the claim, a row a seed, the rules, how to repeat it
submission.json       the same figures for programs
config.toml           settings; the seeds are in submission.json
train_seed1337.log    settings, steps and figures of a run, one a seed
report_seed1337.json  everything that the run reported, one a seed
requirements.txt      versions that the runs had
code.tar.zst          the code that loading and scoring need, as its bytes were counted
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pygolf
from pygolf.data.folders import replacing_folder
from pygolf.errors import DataError
from pygolf.files import read_json
from pygolf.progress import read_metrics
from pygolf.score.code_bytes import code_files, pack
from pygolf.score.stats import spread

MARKER = "submission.json"

_SECTIONS = ("data", "model", "train", "adapt", "quant", "score")
_PACKAGES = ("torch", "sentencepiece", "zstandard")


@dataclass(frozen=True)
class Author:
    """Who claims the score, and under which title."""

    author: str
    github_id: str
    name: str
    date: str
    """ISO 8601 day."""


@dataclass(frozen=True)
class CheckedRun:
    """A finished run and what `verify` found: rule, status and figure of each."""

    folder: Path
    report: dict[str, Any]
    rules: Sequence[dict[str, str]]

    @property
    def seed(self) -> int:
        return int(self.report["seed"])


def read_checked(folder: Path, rules: Sequence[dict[str, str]]) -> CheckedRun:
    """A run that may be claimed. Raises DataError if it is not finished, breaks a rule, or is not a clean score."""
    path = folder / "report.json"
    if not path.is_file():
        raise DataError(f"{folder} has no report.json; finish the run first: 'pygolf run --resume {folder}'")
    broken = [f"{r['rule']} ({r['figure']})" for r in rules if r["status"] == "fail"]
    if broken:
        raise DataError(f"{folder} breaks the rules, so there is no submission: {'; '.join(broken)}")
    report = dict(read_json(path))
    if report["seen"] is not False:
        found = "unknown" if report["seen"] is None else f"seen ({report['seen_tokens']:,} tokens)"
        raise DataError(f"{folder}: its score is {found}, expected a clean one; a claim needs text that is new")
    return CheckedRun(folder, report, rules)


def write_submission(runs: Sequence[CheckedRun], out: Path, author: Author) -> dict[str, Any]:
    """Writes the record folder, whole or not at all; returns what submission.json holds.

    Raises DataError if the runs do not differ in their seeds alone, scored different text, or were packed with other
    code than the pygolf that is running, and if `out` holds anything.
    """
    check_together(runs)
    runs = sorted(runs, key=lambda run: run.seed)
    archive = pack(code_files(Path(pygolf.__file__).parent))
    _check_code(runs, len(archive))
    figures = submission_figures(runs, author)
    with replacing_folder(out, marker=MARKER, overwrite=False) as folder:
        (folder / MARKER).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(_readme(runs, figures), encoding="utf-8")
        (folder / "requirements.txt").write_text(_requirements(runs[0].report["versions"]), encoding="utf-8")
        (folder / "config.toml").write_bytes((runs[0].folder / "config.toml").read_bytes())
        (folder / "code.tar.zst").write_bytes(archive)
        for run in runs:
            (folder / f"train_seed{run.seed}.log").write_text(_log(run), encoding="utf-8")
            report = json.dumps({**run.report, "rules": list(run.rules)}, indent=2)
            (folder / f"report_seed{run.seed}.json").write_text(report + "\n", encoding="utf-8")
    return figures


def check_together(runs: Sequence[CheckedRun]) -> None:
    """Raises DataError if the runs are not one recipe with several seeds, scored on one text."""
    first = runs[0]
    for run in runs[1:]:
        for section in _SECTIONS:
            if run.report["config"][section] != first.report["config"][section]:
                raise DataError(f"{run.folder} and {first.folder} differ in [{section}]; a claim is about one recipe")
        for name in ("text_sha256", "tokenizer_sha256", "code_bytes"):
            if run.report.get(name) != first.report.get(name):
                raise DataError(f"{run.folder} and {first.folder} differ in {name}; their scores cannot be averaged")
    seeds = [run.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        raise DataError(f"the runs have seeds {seeds}; expected each seed once")


def _check_code(runs: Sequence[CheckedRun], counted: int) -> None:
    found = runs[0].report["code_bytes"]
    if found != counted:
        raise DataError(
            f"{runs[0].folder} was packed with {found:,} bytes of code, but this pygolf has {counted:,}; install the "
            "version that made the runs, or make them again"
        )


def submission_figures(runs: Sequence[CheckedRun], author: Author) -> dict[str, Any]:
    """Contents of submission.json: means over the seeds; bytes are those of the largest artifact."""
    bpb, loss = (spread([run.report[name] for run in runs]) for name in ("bpb", "val_loss"))
    figures: dict[str, Any] = {
        "author": author.author,
        "github_id": author.github_id,
        "name": author.name,
        "date": author.date,
        "val_bpb": bpb.mean,
        "val_loss": loss.mean,
        "bytes_total": max(run.report["artifact_bytes"] for run in runs) + runs[0].report["code_bytes"],
        "bytes_code": runs[0].report["code_bytes"],
        "seeds": [run.seed for run in runs],
        "seed_results": {str(run.seed): _seed_figures(run.report) for run in runs},
    }
    if len(runs) > 1:
        figures |= {"val_bpb_std": bpb.std, "val_loss_std": loss.std}
    known = {name: runs[0].report.get(name) for name in ("text_sha256", "tokenizer_sha256")}
    return {**figures, **known, "versions": runs[0].report["versions"]}


def _seed_figures(report: dict[str, Any]) -> dict[str, Any]:
    return {
        "val_bpb": report["bpb"],
        "val_loss": report["val_loss"],
        "artifact_bytes": report["artifact_bytes"],
        "artifact_sha256": report.get("artifact_sha256"),
        "steps": report["training"]["steps"],
        "seconds": report["stages"],
    }


def _readme(runs: Sequence[CheckedRun], figures: dict[str, Any]) -> str:
    first = runs[0].report
    spread = f" ± {figures['val_bpb_std']:.4f} (n = {len(runs)})" if "val_bpb_std" in figures else ""
    rows = [_row(str(seed), r) for seed, r in figures["seed_results"].items()]
    rules = [f"| {r['rule']} | {r['status']} | {r['figure']} |" for r in runs[0].rules]
    config = first["config"]
    files = (f"`{run.folder.name}/report.json`" for run in runs)
    lines = [
        f"# {figures['name']}",
        "",
        f"**val_bpb {figures['val_bpb']:.4f}{spread}**, val_loss {figures['val_loss']:.4f} nats a token, "
        f"{figures['bytes_total']:,} bytes of artifact and code. {figures['author']}, {figures['date']}.",
        "",
        "| seed | val_bpb | val_loss | artifact bytes | steps | training (s) | scoring (s) |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"Scored: {first['tokens_scored']:,} tokens, {first['bytes_scored']:,} bytes, each token once, sliding window "
        f"of {config['model']['sequence_length']} with stride {config['score']['stride']}, from the packed file alone. "
        f"No scored token was trained on. Adaptation read: {config['adapt']['source']}. "
        f"Device: {first['versions']['device']}.",
        "",
        f"## Rules (seed {runs[0].seed})",
        "",
        "| rule | result | figure |",
        "|---|---|---|",
        *rules,
        "",
        "## Repeat it",
        "",
        "With pygolf "
        + first["versions"]["pygolf"]
        + " and the versions in requirements.txt: put `config.toml` into a",
        "new folder `runs/NAME`, set its seed, and",
        "",
        "```",
        "pygolf run --resume runs/NAME",
        "pygolf verify runs/NAME",
        "```",
        "",
        f"`code.tar.zst` is the code that loading and scoring need ({figures['bytes_code']:,} bytes, counted whole).",
        f"Figures come from {', '.join(files)}, which are here as `report_seed*.json`.",
    ]
    return "\n".join(lines) + "\n"


def _row(seed: str, result: dict[str, Any]) -> str:
    seconds = [f"{result['seconds'].get(name, 0.0):.1f}" for name in ("train", "score")]
    figures = [f"{result['val_bpb']:.4f}", f"{result['val_loss']:.4f}", f"{result['artifact_bytes']:,}"]
    return "| " + " | ".join([seed, *figures, f"{result['steps']:,}", *seconds]) + " |"


def _requirements(versions: dict[str, str]) -> str:
    # What stands behind a + ("2.11.0+cu130") names a build, which no package index lists.
    return "".join(f"{name}=={versions[name].split('+')[0]}\n" for name in _PACKAGES)


def _log(run: CheckedRun) -> str:
    """Settings, every record of metrics.jsonl as a line, and the figures."""
    config = (run.folder / "config.toml").read_text(encoding="utf-8")
    records = (" ".join(f"{k}:{_short(v)}" for k, v in r.items()) for r in read_metrics(run.folder / "metrics.jsonl"))
    plain = {k: v for k, v in run.report.items() if not isinstance(v, dict | list)}
    return "\n".join([config, *records, "", *(f"{k}:{_short(v)}" for k, v in plain.items())]) + "\n"


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
