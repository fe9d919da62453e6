"""report.html: one file without network, fonts or libraries; light or dark as the reader's system is."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from pygolf.files import write_text
from pygolf.report.charts import Chart
from pygolf.report.figures import score_charts, size_charts, training_charts
from pygolf.report.report import seen_label, verdict_label
from pygolf.report.run_files import RunFiles, read_run
from pygolf.score.stats import spread

REPORT_NAME = "report.html"

_BADGES = {"clean": "good", "seen": "bad", "unknown": "doubt", "pass": "good", "fail": "bad", "n/a": "doubt"}


def write_page(folder: Path) -> Path:
    """Makes a finished run's report.html from the files of its folder; returns its path.

    Raises DataError if the run has no report.json yet.
    """
    path = folder / REPORT_NAME
    write_text(path, page(read_run(folder)))
    return path


def page(run: RunFiles) -> str:
    """The whole document."""
    here = Path(__file__)
    style, script = here.with_suffix(".css").read_text(), here.with_suffix(".js").read_text()
    sections = [
        _headline(run),
        _section("Training", _charts(training_charts(run))),
        _section("Score", _charts(score_charts(run))),
        _section("Size and time", _charts(size_charts(run))),
        _section("What it writes", _samples(run.report.get("samples", []))),
        _section("Hardest documents", _worst(run.report.get("worst_documents", []))),
        _section("Rules", _rules(run.verify)),
        _section("Record", _record(run.report)),
    ]
    name = escape(str(run.report["config"]["name"]))
    # The policy makes the browser itself refuse whatever is not in this file.
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}: {run.report['bpb']:.4f} bpb</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f"{''.join(sections)}{_footer(run.report)}</main>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}</section>\n" if content else ""


def _headline(run: RunFiles) -> str:
    report = run.report
    status = {None: "unknown", True: "seen", False: "clean"}[report["seen"]]
    badge = f'<span class="badge {_BADGES[status]}">{status}</span>'
    tiles = "".join(f"<div><dt>{t}</dt><dd>{v}<small>{escape(n)}</small></dd></div>" for t, v, n in _tiles(run))
    return (
        f'<header>\n<div class="head"><h1>{escape(str(report["config"]["name"]))}</h1>{badge}'
        f'<span class="muted">{escape(_verdict(report))}</span></div>\n'
        f'<p class="big">{report["bpb"]:.4f} <small>bits per byte of the packed file</small></p>\n'
        f'<dl class="tiles">{tiles}</dl>\n</header>\n'
    )


def _verdict(report: dict[str, Any]) -> str:
    """The badge in words, with figures where the report has them."""
    return verdict_label(report["provenance"]) if "provenance" in report else seen_label(report["seen"])


def _tiles(run: RunFiles) -> Iterable[tuple[str, str, str]]:
    """Name, value and remark of the figures beside the score."""
    report = run.report
    used = report["artifact_bytes"] + report["code_bytes"]
    left = report["budget_bytes"] - used
    yield "Bytes left", f"{left:,}", f"{used:,} of {report['budget_bytes']:,} used"
    if len(run.seeds) > 1:
        bpb = spread(list(run.seeds.values()))
        yield (
            f"{len(run.seeds)} seeds",
            f"{bpb.mean:.4f}",
            f"± {bpb.std:.4f} ({', '.join(map(str, sorted(run.seeds)))})",
        )
    else:
        yield "Seed", str(report["seed"]), "one run"
    if "bpb_unquantized" in report:
        yield "Cost of packing", f"{report['bpb'] - report['bpb_unquantized']:+.4f}", "bpb against the weights before"
    provenance = report.get("provenance", {})
    if report["seen"] and provenance.get("bpb_clean") is not None:
        yield "Clean part alone", f"{provenance['bpb_clean']:.4f}", f"bpb; {provenance['fitted_tokens']:,} tokens seen"
    if report.get("adaptive"):
        yield "Score-first", f"{report['adaptive']['bpb']:.4f}", "bpb when adapting while scoring"
    training = report["training"]
    seconds = report["stages"].get("train", 0.0)
    yield "Training", f"{seconds:,.0f} s", f"{training['steps']:,} steps, {training['tokens']:,} tokens"
    yield "Scored text", f"{report['bytes_scored']:,} B", f"{report['tokens_scored']:,} tokens, each once"


def _charts(charts: Iterable[Chart | None]) -> str:
    figures = "".join(_figure(chart) for chart in charts if chart)
    return f'<div class="charts">\n{figures}</div>\n' if figures else ""


def _figure(chart: Chart) -> str:
    keys = "".join(f'<li><span class="key c{color}"></span>{escape(name)}</li>' for name, color in chart.legend)
    legend = f'<ul class="legend">{keys}</ul>' if keys else ""
    return (
        f'<figure class="card"><figcaption><h3>{escape(chart.title)}</h3><p>{escape(chart.note)}</p></figcaption>'
        f'{chart.svg}{legend}<p class="readout" aria-live="polite"></p></figure>\n'
    )


def _samples(samples: list[str]) -> str:
    return "".join(_text_card(f"Sample {i}", text) for i, text in enumerate(samples, 1))


def _worst(documents: list[dict[str, Any]]) -> str:
    if not documents:
        return ""
    intro = (
        '<p class="muted">The documents with the most bits per byte, from 200 bytes on; their first 600 characters.</p>'
    )
    return intro + "".join(
        _text_card(f"{d['bpb']:.3f} bpb: document {d['document']:,}, {d['bytes']:,} bytes", d["text"])
        for d in documents
    )


def _text_card(title: str, text: str) -> str:
    return f'<div class="card sample"><h3>{escape(title)}</h3><pre>{escape(text)}</pre></div>\n'


def _rules(verify: dict[str, Any]) -> str:
    if not verify:
        return ""
    rows = "".join(
        f'<tr><td>{escape(r["rule"])}</td><td><span class="badge {_BADGES[r["status"]]}">{r["status"]}</span></td>'
        f"<td>{escape(r['figure'])}</td></tr>"
        for r in verify["results"]
    )
    head = "<thead><tr><th>rule</th><th>result</th><th>figure</th></tr></thead>"
    return f'<div class="card scroll"><table>{head}<tbody>{rows}</tbody></table></div>\n'


def _record(report: dict[str, Any]) -> str:
    """What was read, every setting and every version."""
    parts = [_details("What each stage read", _reads(report.get("stage_records", [])))]
    plain = {k: v for k, v in report["config"].items() if not isinstance(v, dict)}
    tables = {"run": plain, **{k: v for k, v in report["config"].items() if isinstance(v, dict)}}
    parts += [_details(f"Settings: {name}", _pairs(values)) for name, values in tables.items()]
    parts.append(_details("Versions", _pairs(report["versions"])))
    return "".join(parts)


def _details(title: str, content: str) -> str:
    return f'<details class="card"><summary>{escape(title)}</summary>{content}</details>\n' if content else ""


def _pairs(values: dict[str, Any]) -> str:
    rows = "".join(f'<tr><td>{escape(k)}</td><td class="code">{escape(_value(v))}</td></tr>' for k, v in values.items())
    return f'<div class="scroll"><table class="pairs"><tbody>{rows}</tbody></table></div>'


def _value(value: Any) -> str:
    if value is None:
        return "not set"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _reads(records: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(r['stage'])}</td><td>{escape(r['split'])}</td><td>{escape(r['shard'])}</td>"
        f'<td class="figure">{max(r["begin"], 0):,} to {r["end"]:,}</td>'
        f'<td class="code">{escape(r["digest"][:16])}</td></tr>'
        for record in records
        for r in record["reads"]
    )
    if not rows:
        return ""
    head = "<tr><th>stage</th><th>split</th><th>shard</th>"
    head += '<th class="figure">tokens</th><th>SHA-256 (begin)</th></tr>'
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _footer(report: dict[str, Any]) -> str:
    versions = report["versions"]
    text = f"pygolf {versions['pygolf']}, torch {versions['torch']}, Python {versions['python']}, {versions['device']}"
    return f"<footer>{escape(text)}</footer>\n"
