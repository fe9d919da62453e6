"""report.json and the closing table of a run."""

from __future__ import annotations

import platform
from typing import Any

import sentencepiece
import torch
import zstandard
from rich.table import Table

import pygolf


def versions() -> dict[str, str]:
    """Versions of everything that a score can depend on."""
    return {
        "pygolf": pygolf.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "sentencepiece": str(sentencepiece.__version__),
        "zstandard": zstandard.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
    }


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
