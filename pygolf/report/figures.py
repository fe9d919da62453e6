"""The charts of a report, each a function of what the run folder holds; None where it holds nothing to draw."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable
from typing import Any

from pygolf.report.charts import COLORS, Bar, Chart, Series, bar_chart, histogram, line_chart
from pygolf.report.run_files import RunFiles

SHORT_DOCUMENT = 200  # bytes; the bpb of shorter documents is mostly chance
STAGE_NAMES = ("train", "adapt", "calibrate", "quantize", "score")

_GROUPS = (
    (re.compile(r"tok_emb"), "token embedding"),
    (re.compile(r"bigram"), "bigram table"),
    (re.compile(r"^ve_"), "value embedding"),
    (re.compile(r"attn\.(q|k|v|out)\.weight$"), "attention"),
    (re.compile(r"mlp\.(up|down)\.weight$"), "MLP"),
)
_MATRIX = re.compile(r"blocks\.(\d+)\.(?:attn|mlp)\.(\w+)\.weight$")


def training_charts(run: RunFiles) -> list[Chart | None]:
    """Loss, learning rate and gradient norm against the training clock."""
    return [_loss(run), _rate(run), _norm(run)]


def score_charts(run: RunFiles) -> list[Chart | None]:
    """bpb after each stage, by position in the window and by document."""
    return [_after_stages(run), _positions(run), _documents(run)]


def size_charts(run: RunFiles) -> list[Chart | None]:
    """Bytes by group of tensors, quantization error by layer, seconds of the stages."""
    return [_bytes(run), _errors(run), _time_line(run)]


def smoothed(values: list[float]) -> list[float]:
    """Exponential mean over about a fortieth of the values, without the bias of its start."""
    decay = 1 - 1 / max(2, len(values) / 40)
    means, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = decay * total + value, decay * weight + 1
        means.append(total / weight)
    return means


def _curve(run: RunFiles, name: str) -> tuple[list[float], list[float]]:
    """Training clock and values of a metric; records without it are passed over."""
    records = [r for r in run.training if name in r and math.isfinite(r[name])]
    return [r["seconds"] for r in records], [r[name] for r in records]


def _loss(run: RunFiles) -> Chart | None:
    seconds, losses = _curve(run, "loss")
    if not losses:
        return None
    steps = Series("each step", seconds, losses, 0, faint=True)
    lines = [steps, Series("smoothed", seconds, smoothed(losses), 1)]
    note = f"{len(losses):,} steps; the last smoothed value is {lines[1].ys[-1]:.4f} nats a token."
    return line_chart("Training loss", note, lines, x_label="training clock (s)", y_label="loss (nats a token)")


def _rate(run: RunFiles) -> Chart | None:
    seconds, scales = _curve(run, "lr_scale")
    if not scales:
        return None
    note = "Constant, then down to zero when the time that is left is the length of the warmdown."
    lines = [Series("learning rate", seconds, scales, 0)]
    label = "share of its peak"
    return line_chart("Learning rate", note, lines, x_label="training clock (s)", y_label=label, y_range=(0, 1))


def _norm(run: RunFiles) -> Chart | None:
    seconds, norms = _curve(run, "norm")
    if not norms:
        return None
    clip = run.report["config"]["train"]["clip_norm"]
    over = sum(norm > clip for norm in norms)
    note = f"Before clipping to {clip:g}, which took effect in {over:,} of {len(norms):,} steps."
    lines = [Series("each step", seconds, norms, 0, faint=True), Series("smoothed", seconds, smoothed(norms), 1)]
    label, high = "gradient norm", max(norms)
    return line_chart(
        "Gradient norm", note, lines, x_label="training clock (s)", y_label=label, y_range=(0, high or 1.0)
    )


def _after_stages(run: RunFiles) -> Chart:
    report = run.report
    after = report.get("bpb_after", {})
    rows = [("trained", after.get("train"), 0), ("adapted", after.get("adapt"), 0)]
    rows += [("packed", report["bpb_plain"], 0), ("adapted, sliding", report.get("bpb_unquantized"), 1)]
    rows += [("packed, sliding", report["bpb"], 1)]
    if report.get("adaptive"):
        rows.append(("score-first", report["adaptive"]["bpb"], 2))
    kinds = ("windows without overlap", "sliding window", "score-first adaptation")
    bars = [Bar(n, 0, v, f"{v:.4f}", f"{n} ({kinds[c]}): {v:.5f} bpb", c) for n, v, c in rows if v is not None]
    values = [bar.end for bar in bars]
    room = 0.08 * (max(values) - min(values)) or 0.01
    chart = bar_chart(
        "Bits per byte after each stage",
        "Lower is better. The scale does not begin at zero. The last sliding-window value is the run's score.",
        bars,
        x_label="bits per byte",
        x_range=(min(values) - room, max(values) + room),
        dots=True,
    )
    legend = tuple((kinds[c], c) for c in sorted({bar.color for bar in bars}))
    return Chart(chart.title, chart.note, chart.svg, legend)


def _positions(run: RunFiles) -> Chart | None:
    ranges = [r for r in run.report.get("positions", []) if r["bpb"] is not None]
    if len(ranges) < 2:
        return None
    line = Series("bpb", [(r["begin"] + r["end"]) / 2 for r in ranges], [r["bpb"] for r in ranges], 0, dots=True)
    note = "Windows without overlap. Early positions have little context; the sliding window gives all tokens much."
    return line_chart(
        "By position in the window",
        note,
        [line],
        x_label="position in the window (tokens)",
        y_label="bits per byte",
    )


def _documents(run: RunFiles) -> Chart | None:
    if run.documents is None:
        return None
    sizes = run.documents.bytes.tolist()
    pairs = zip(sizes, run.documents.nll["nll"].tolist(), strict=True)
    values = [nll / (math.log(2) * size) for size, nll in pairs if size >= SHORT_DOCUMENT]
    if len(values) < 2:
        return None
    left_out = len(sizes) - len(values)
    others = f"; {left_out:,} shorter than {SHORT_DOCUMENT} bytes left out" if left_out else ""
    return histogram(
        "By document",
        f"{len(values):,} documents, median {statistics.median(values):.3f}{others}.",
        values,
        x_label="bits per byte of a document",
        y_label="documents",
        mark=(run.report["bpb"], f"all text: {run.report['bpb']:.3f}"),
    )


def _bytes(run: RunFiles) -> Chart | None:
    if not run.tensors:
        return None
    groups: dict[str, tuple[int, int]] = {}
    for tensor in run.tensors:
        name = next((name for pattern, name in _GROUPS if pattern.search(tensor.name)), "vectors and scalars")
        weights, stored = groups.get(name, (0, 0))
        groups[name] = (weights + tensor.weights, stored + tensor.bytes)
    report = run.report
    bars = [
        Bar(name, 0, stored, _bytes_text(stored), f"{name}: {stored:,} bytes, {8 * stored / weights:.2f} bits a weight")
        for name, (weights, stored) in sorted(groups.items(), key=lambda item: -item[1][1])
    ]
    rest = report["artifact_bytes"] - sum(stored for _, stored in groups.values())
    bars.append(Bar("manifest", 0, rest, _bytes_text(rest), f"header, table and manifest: {rest:,} bytes", 6))
    code = report["code_bytes"]
    bars.append(Bar("code", 0, code, _bytes_text(code), f"code that scoring needs: {code:,} bytes", 6))
    weights = sum(weights for weights, _ in groups.values())
    bits = 8 * report["artifact_bytes"] / weights
    note = f"{report['artifact_bytes']:,} bytes hold {weights:,} weights: {bits:.2f} bits a weight with everything."
    return bar_chart("Bytes by tensor group", note, bars, x_label="bytes")


def _bytes_text(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _errors(run: RunFiles) -> Chart | None:
    errors = run.stages.get("quantize", {}).get("errors", {})
    kinds: dict[str, list[tuple[int, float]]] = {}
    for name, error in errors.items():
        found = _MATRIX.match(name)
        if found and error > 0:
            kinds.setdefault(found[2], []).append((int(found[1]), error))
    if not kinds:
        return None
    lines = [
        Series(kind, [x for x, _ in sorted(points)], [y for _, y in sorted(points)], i % COLORS, dots=True)
        for i, (kind, points) in enumerate(kinds.items())
    ]
    if run.report["config"]["quant"].get("method") == "rd":
        total, label = sum(errors.values()), "rise of the loss (nats a token)"
        note = f"What rounding a matrix is expected to cost, logarithmic; {total:.2g} nats a token for the whole model."
    else:
        label = "squared error (H-weighted)"
        note = "What rounding changes in a matrix's output, weighted with its inputs, logarithmic."
    return line_chart("Quantization error by layer", note, lines, x_label="block", y_label=label, logarithmic=True)


def _time_line(run: RunFiles) -> Chart:
    spans = list(_spans(run.report))
    budget = run.report["config"]["train"]["max_seconds"]
    bars = [
        Bar(name, begin, end, f"{end - begin:.1f} s", f"{name}: {begin:.1f} s to {end:.1f} s", i % COLORS)
        for i, (name, begin, end) in enumerate(spans)
    ]
    limit = (float(budget), f"training budget {budget:g} s") if budget else None
    note = "Work one stage after the other, without pauses between them; setting up and compiling are not on the clock."
    return bar_chart("Time line", note, bars, x_label="seconds of work since training began", limit=limit)


def _spans(report: dict[str, Any]) -> Iterable[tuple[str, float, float]]:
    """Stage, begin and end: of the stages' own clocks, or of the seconds that each took."""
    if report.get("stage_records"):
        yield from ((r["stage"], r["clock"][0], r["clock"][1]) for r in report["stage_records"])
        return
    clock = 0.0
    for name in STAGE_NAMES:
        if name in report["stages"]:
            yield name, clock, clock + report["stages"][name]
            clock += report["stages"][name]
