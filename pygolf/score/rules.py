"""The rules of the challenge, checked on a finished run folder (RECIPE 9): `pygolf verify RUN`.

Every rule is one function from the evidence to a line. What can be measured again is measured again: the file's size,
the text's bytes, the model's causality; only times are taken from the run's own records.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

import pygolf
from pygolf.config import BUDGET_BYTES, RunConfig
from pygolf.config_file import load_toml
from pygolf.data.splits import open_data
from pygolf.files import read_json
from pygolf.model.load import LoadedArtifact, load_artifact
from pygolf.progress import Reporter
from pygolf.runtime import Runtime
from pygolf.score.code_bytes import code_files, pack
from pygolf.score.documents import BLOCK_TARGETS, Documents, load_documents, text_digest
from pygolf.score.probes import causality_gap, normalisation_gap, rescore, score_first_gap
from pygolf.score.score_file import Text, read_text
from pygolf.score.sliding import plan_windows
from pygolf.score.verdict import Verdict, judge, read_provenance

LOG_PROBABILITY_TOLERANCE = 1e-4
"""Nats by which an earlier log-probability may differ when later tokens change: rounding of other kernels' sums."""
NORMALISATION_TOLERANCE = 1e-3
RESCORE_TOLERANCE = 5e-3
"""Relative difference of a block's loss when it is scored again on another device or in another precision."""
BLOCK_TOLERANCE = 1e-5
"""Relative difference between sums that were rounded to fp32 and those that were not."""
RATIO_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run may take."""

    budget_bytes: int = BUDGET_BYTES
    """Artifact and code together."""
    train_seconds: float = 600.0
    """Training and any other use of training data."""
    score_seconds: float = 600.0
    """Scoring, with loading the artifact and the text."""


@dataclass(frozen=True)
class RuleResult:
    """One rule, one line."""

    rule: str
    status: Literal["pass", "fail", "n/a"]
    figure: str


@dataclass(frozen=True)
class Verification:
    """All rules on one run."""

    results: tuple[RuleResult, ...]
    code_files: dict[str, int]
    """Name -> bytes of every counted source file; they count as one zstd-19 archive."""

    @property
    def passed(self) -> bool:
        """Whether no rule is broken."""
        return all(r.status != "fail" for r in self.results)

    def to_dict(self) -> dict[str, Any]:
        """verify.json."""
        return {"passed": self.passed, **asdict(self)}


@dataclass(frozen=True)
class Evidence:
    """What the rules look at."""

    folder: Path
    config: RunConfig
    report: dict[str, Any]
    text: Text
    documents: Documents
    loaded: LoadedArtifact
    verdict: Verdict
    code: dict[str, bytes]
    limits: Limits
    runtime: Runtime

    @property
    def artifact(self) -> Path:
        return self.folder / "model.golf"


def verify_run(
    folder: Path,
    runtime: Runtime,
    *,
    data: Path | None = None,
    limits: Limits | None = None,
    reporter: Reporter | None = None,
) -> Verification:
    """Checks every rule on a finished run folder.

    Args:
        folder: the run.
        runtime: where the model is probed; one rank.
        data: the data folder, if it is not where the run found it.
        limits: bytes and seconds allowed.
        reporter: shows the search for copies.

    Raises DataError, IoError, FormatError or ConfigError if the run is not finished or its data is not at hand.
    """
    evidence = gather(folder, runtime, data, limits or Limits(), reporter or Reporter(enabled=False))
    results = tuple(_line(rule, check, evidence) for rule, check in RULES.items())
    return Verification(results, {name: len(content) for name, content in evidence.code.items()})


def gather(folder: Path, runtime: Runtime, data: Path | None, limits: Limits, reporter: Reporter) -> Evidence:
    """Opens everything that the rules look at."""
    config = load_toml(folder / "config.toml")
    if data is not None:
        config = replace(config, data=replace(config.data, path=data))
    report = dict(read_json(folder / "report.json"))
    opened = open_data(config.data, config.model)
    text, documents = read_text(config, opened), load_documents(folder)
    loaded = load_artifact(folder / "model.golf", runtime)
    shards = {digest: path for path, digest in opened.digests.items()}
    no_losses = np.zeros(len(text.tokens) - 1, dtype=np.float32)
    provenance = read_provenance(folder / "model.golf", loaded.manifest)
    verdict = judge(provenance, text, no_losses, shards, reporter)
    code = code_files(Path(pygolf.__file__).parent)
    return Evidence(folder, config, report, text, documents, loaded, verdict, code, limits, runtime)


Check = Callable[[Evidence], tuple[bool | None, str]]
"""Evidence -> (whether the rule is kept, None if it does not apply; the figure)."""


def _line(rule: str, check: Check, evidence: Evidence) -> RuleResult:
    kept, figure = check(evidence)
    return RuleResult(rule, "n/a" if kept is None else "pass" if kept else "fail", figure)


def _bytes(e: Evidence) -> tuple[bool, str]:
    content = e.artifact.read_bytes()
    if hashlib.sha256(content).hexdigest() != e.report["artifact_sha256"]:
        return False, f"{e.artifact.name} is not the file that was scored: its digest is another than the report's"
    code = len(pack(e.code))
    total = len(content) + code
    raw = sum(map(len, e.code.values()))
    figure = f"{total:,} of {e.limits.budget_bytes:,}: artifact {len(content):,}, code {code:,}"
    return total <= e.limits.budget_bytes, f"{figure} ({len(e.code)} files, {raw:,} bytes raw, one zstd-19 archive)"


def _training_time(e: Evidence) -> tuple[bool, str]:
    recorded = [{k: v for k, v in r.items() if k != "reads"} for r in e.report["stage_records"]]
    if [r for r in recorded if r["stage"] != "score"] != e.loaded.manifest.get("stages"):
        return False, "the report's clock is not the one in the artifact's manifest"
    for r in recorded:
        passed = (datetime.fromisoformat(r["utc"][1]) - datetime.fromisoformat(r["utc"][0])).total_seconds()
        if r["clock"][1] - r["clock"][0] > passed + 2:
            return False, f"{r['stage']} says it worked {r['clock'][1] - r['clock'][0]:.1f} s within {passed:.0f} s"
    reading = [r for r in e.report["stage_records"] if r["stage"] != "score" and r["reads"]]
    last = max(r["clock"][1] for r in reading)
    parts = ", ".join(f"{r['stage']} {r['clock'][1] - r['clock'][0]:.1f}" for r in reading)
    return last <= e.limits.train_seconds, f"{last:.1f} s of {e.limits.train_seconds:g}: {parts}"


def _scoring_time(e: Evidence) -> tuple[bool, str]:
    seconds = {name: e.report["stages"][name] for name in ("score", "score_adaptive") if name in e.report["stages"]}
    figures = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    return max(seconds.values()) <= e.limits.score_seconds, f"{figures} of {e.limits.score_seconds:g}, with loading"


def _tokens_once(e: Evidence) -> tuple[bool, str]:
    if text_digest(e.text) != e.report["text_sha256"]:
        return False, "the text at hand is not the one that was scored: its digest is another than the report's"
    targets = len(e.text.tokens) - 1
    length = e.loaded.model.config.sequence_length
    plan = plan_windows(targets + 1, length, min(e.config.score.stride, length))
    edges = np.zeros(targets + 1, dtype=np.int64)
    np.add.at(edges, plan.starts + plan.first_scored, 1)
    np.add.at(edges, plan.starts + plan.length, -1)
    times = np.cumsum(edges)[:-1]
    counts = {"the report": e.report["tokens_scored"], "the documents": int(e.documents.tokens.sum())}
    for name, count in counts.items():
        if count != targets:
            return False, f"{name} counts {count:,} scored tokens, the text has {targets:,} to score"
    return bool((times == 1).all()), f"{targets:,} tokens, each in one of {len(plan):,} windows"


def _text_bytes(e: Evidence) -> tuple[bool, str]:
    tokenizer, tokens = e.text.tokenizer, e.text.tokens
    decoded = len(tokenizer.decode_bytes(tokens)) - len(tokenizer.decode_bytes(tokens[:1]))
    counted = e.report["bytes_scored"]
    return counted == decoded, f"{counted:,} counted, {decoded:,} in the decoded text"


def _loss_ratio(e: Evidence) -> tuple[bool, str]:
    constant = math.log(2) * float(e.text.target_bytes.sum(dtype=np.int64)) / (len(e.text.tokens) - 1)
    ratio = e.report["val_loss"] / e.report["bpb"]
    mean = float(e.documents.nll["nll"].sum()) / float(e.documents.tokens.sum())
    if not math.isclose(mean, e.report["val_loss"], rel_tol=RATIO_TOLERANCE):
        return False, f"val_loss is {e.report['val_loss']:.6f}, but the documents' mean is {mean:.6f}"
    figure = f"val_loss / val_bpb is {ratio:.6f}; {constant:.6f} for this tokenizer and text"
    return math.isclose(ratio, constant, rel_tol=RATIO_TOLERANCE), figure


def _causality(e: Evidence) -> tuple[bool, str]:
    gap = causality_gap(e.loaded.model, e.text.tokens)
    return gap <= LOG_PROBABILITY_TOLERANCE, f"later tokens replaced: earlier log-probabilities move by {gap:.1e}"


def _normalisation(e: Evidence) -> tuple[bool, str]:
    gap = normalisation_gap(e.loaded.model, e.text.tokens)
    return gap <= NORMALISATION_TOLERANCE, f"the probabilities of all tokens sum to 1 within {gap:.1e}"


def _no_update_before_score(e: Evidence) -> tuple[bool, str]:
    if e.verdict.status == "unknown":
        return False, "the artifact does not say what its weights were trained on"
    kept = e.verdict.status == "clean"
    figure = f"{e.verdict.fitted_tokens:,} scored tokens were trained on"
    figure = f"{figure}, {e.verdict.copied_tokens:,} more stand in short copies in training shards"
    if e.report["adaptive"] is None:
        return kept, figure
    gap = score_first_gap(e.loaded.model, e.text.tokens, e.config.score, e.runtime)
    return kept and gap <= LOG_PROBABILITY_TOLERANCE, f"{figure}; score-first: earlier losses move by {gap:.1e}"


def _one_pass(e: Evidence) -> tuple[bool, str]:
    total, documents = e.documents.blocks.sum(dtype=np.float64), e.documents.nll["nll"].sum()
    if not math.isclose(total, documents, rel_tol=BLOCK_TOLERANCE):
        return False, f"the blocks of the record hold {total:.3f} nats, its documents {documents:.3f}"
    blocks = rescore(e.loaded.model, e.text.tokens, e.config.score)
    again, recorded = np.array(list(blocks.values())), e.documents.blocks[list(blocks)]
    gap = float(np.abs(again - recorded).sum() / again.sum())
    figure = f"{len(blocks)} blocks of {BLOCK_TARGETS} tokens, scored again in one pass, differ by {100 * gap:.4f} %"
    return gap <= RESCORE_TOLERANCE, figure


def _significance(e: Evidence) -> tuple[None, str]:
    return None, "a claim needs several seeds a side: pygolf compare RUN... --against RUN..."


RULES: dict[str, Check] = {
    "bytes": _bytes,
    "training time": _training_time,
    "scoring time": _scoring_time,
    "tokens once": _tokens_once,
    "text bytes": _text_bytes,
    "loss ratio": _loss_ratio,
    "causality": _causality,
    "normalisation": _normalisation,
    "no update before score": _no_update_before_score,
    "one pass": _one_pass,
    "significance": _significance,
}
