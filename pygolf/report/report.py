"""report.json and the closing table of a run."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import zstandard
from rich.table import Table

import pygolf
from pygolf.config import RunConfig
from pygolf.score.documents import Documents, by_position, worst_documents
from pygolf.score.score_file import FileScore, Text
from pygolf.score.verdict import Verdict


def versions() -> dict[str, str]:
    """Versions of everything that a score can depend on; of flash-attn-4 where it is installed."""
    flash = {d.name: d.version for d in distributions(name="flash-attn-4")}
    return {
        "pygolf": pygolf.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "sentencepiece": str(sentencepiece.__version__),
        "zstandard": zstandard.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
    } | flash


def build_report(
    config: RunConfig,
    records: dict[str, Any],
    artifact: Path,
    text: Text,
    result: FileScore,
    verdict: Verdict,
    documents: Documents,
) -> dict[str, Any]:
    """report.json, but for what the pipeline alone knows. `records` are those of all four stages."""
    return {
        **result.to_dict(),
        "seen": verdict.seen,
        "seen_tokens": verdict.fitted_tokens,
        "provenance": verdict.to_dict(),
        "adaptive": _adaptive(config, result),
        "bpb_after": {name: records[name]["bpb"] for name in ("train", "adapt") if "bpb" in records[name]},
        "artifact_bytes": artifact.stat().st_size,
        "artifact_sha256": hashlib.sha256(artifact.read_bytes()).hexdigest(),
        "text_sha256": documents.text_sha256,
        "tokenizer_sha256": documents.tokenizer_sha256,
        "code_bytes": records["quantize"]["code_bytes"],
        "budget_bytes": config.quant.budget_bytes,
        "stages": {name: seconds for r in records.values() for name, seconds in r["seconds"].items()},
        "stage_records": [r["reading"] for r in records.values()],
        "training": records["train"]["training"],
        "positions": by_position(text, result.losses["nll_plain"], config.model.sequence_length),
        "worst_documents": worst_documents(text, documents),
        "seed": config.seed,
        "config": config.sections(),
        "versions": versions(),
    }


def _adaptive(config: RunConfig, result: FileScore) -> dict[str, Any] | None:
    if result.adaptive is None:
        return None
    figures = {"mode": config.score.adapt, "chunks": result.chunks, "chunk_tokens": config.score.chunk_tokens}
    return {**figures, **asdict(result.adaptive)}


def seen_label(seen: bool | None) -> str:
    """What the screen says about the scored tokens."""
    if seen is None:
        return "unknown: the artifact does not say what its weights were trained on"
    return "SEEN: the weights were fitted to scored tokens" if seen else "clean: no scored token was trained on"


def verdict_label(provenance: dict[str, Any]) -> str:
    """What the screen says about the scored tokens, with the figures behind it."""
    status, clean = provenance["status"], provenance["bpb_clean"]
    if status == "unknown":
        return seen_label(None)
    label = f"SEEN: {provenance['fitted_tokens']:,} were fitted" if status == "seen" else seen_label(False)
    if provenance["copied_tokens"]:
        label += f"; {provenance['copied_tokens']:,} stand in short copies in training shards"
    if clean is not None and (status == "seen" or provenance["copied_tokens"]):
        label += f"; bpb of the others {clean:.4f}"
    missing = provenance["shards"] - provenance["compared"]
    return label + (f" (copies not looked for in {missing} training shards, which are not here)" if missing else "")


def report_table(report: dict[str, Any], compressors: dict[str, float] | None = None) -> Table:
    """The figures of a finished run, two columns."""
    table = Table(title=f"{report['config']['name']}: {report['bpb']:.4f} bits per byte", title_style="bold")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for label, value in _rows(report):
        table.add_row(label, value)
    for name, bits in (compressors or {}).items():
        table.add_row(f"{name} on the same text (bpb)", f"{bits:.4f}")
    table.add_section()
    for name, seconds in report["stages"].items():
        table.add_row(f"{name} (s)", f"{seconds:.1f}")
    return table


def _rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    left = report["budget_bytes"] - report["artifact_bytes"] - report["code_bytes"]
    after = [(f"bpb after {name}, no overlap", f"{bpb:.4f}") for name, bpb in report["bpb_after"].items()]
    if report["adaptive"] is not None:
        after.append(("bpb of the packed file, adapting score-first", f"{report['adaptive']['bpb']:.4f}"))
    return [
        ("bpb of the packed file", f"{report['bpb']:.4f}"),
        ("bpb of the unquantized model", f"{report['bpb_unquantized']:.4f}"),
        ("bpb of the packed file, no overlap", f"{report['bpb_plain']:.4f}"),
        *after,
        ("val_loss (nats a token)", f"{report['val_loss']:.4f}"),
        ("tokens scored", f"{report['tokens_scored']:,}"),
        ("bytes scored", f"{report['bytes_scored']:,}"),
        ("scored tokens", verdict_label(report["provenance"])),
        ("artifact bytes", f"{report['artifact_bytes']:,}"),
        ("code bytes", f"{report['code_bytes']:,}"),
        ("bytes left of the budget", f"{left:,}"),
        ("training steps", f"{report['training']['steps']:,}"),
        ("training tokens", f"{report['training']['tokens']:,}"),
    ]


def figures_table(figures: dict[str, Any]) -> Table:
    """The figures of a lone score."""
    table = Table(title=f"{figures['bpb']:.4f} bits per byte", title_style="bold")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        if name == "provenance":
            table.add_row("scored tokens", verdict_label(value))
        elif name != "seen":
            table.add_row(name, f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if value else "-")
    return table
