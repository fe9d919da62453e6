"""report.html in a real browser: every chart draws, nothing overlaps or overflows, no error is logged."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pygolf.pipeline import Run
from pygolf.report.page import write_page

EVERY_CHART = {
    "Training loss",
    "Learning rate",
    "Gradient norm",
    "Bits per byte after each stage",
    "By position in the window",
    "By document",
    "Bytes by tensor group",
    "Quantization error by layer",
    "Time line",
}

# Measures what the browser made of the page, touches every chart, and leaves its findings in the document.
PROBE = """<script>
document.documentElement.style.width = "WIDTHpx";
window.addEventListener("load", () => {
  const seen = (e) => { const b = e.getBoundingClientRect(); return b.width + b.height > 0; };
  const inside = (a, b) => a.left > b.left - 1 && a.right < b.right + 1 && a.top > b.top - 1 && a.bottom < b.bottom + 1;
  const clash = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1.5 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3;
  const charts = [...document.querySelectorAll("svg.chart")].map((chart) => {
    const box = chart.getBoundingClientRect(), texts = [...chart.querySelectorAll("text")];
    const boxes = texts.map((t) => t.getBoundingClientRect());
    const marks = [...chart.querySelectorAll(".line, .bar, .dot")].filter(seen);
    const target = chart.querySelector("[data-tip]") || chart;
    target.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: box.left + 99, clientY: 9 }));
    return {
      title: chart.querySelector("title").textContent, described: chart.querySelector("desc").textContent.length > 20,
      axes: chart.querySelectorAll(".axis").length, marks: marks.length,
      outside: [...texts, ...marks].filter((e) => !inside(e.getBoundingClientRect(), box)).map((e) => e.outerHTML),
      clashes: texts.flatMap((t, i) => texts.slice(i + 1).filter((u, j) => clash(boxes[i], boxes[i + 1 + j]))
        .map((u) => t.textContent + " / " + u.textContent)),
      readout: chart.parentElement.querySelector(".readout").textContent,
    };
  });
  const main = document.querySelector("main"), size = parseFloat(getComputedStyle(charts.length ?
    document.querySelector(".chart text") : main).fontSize);
  document.body.dataset.probe = JSON.stringify({ charts, overflow: main.scrollWidth - main.clientWidth, size });
});
</script>"""


class Rendered(NamedTuple):
    """What the browser made of a page and what it logged."""

    probe: dict[str, Any]
    dom: str
    log: list[str]


@pytest.fixture(scope="session")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None and os.environ.get("PYGOLF_REQUIRE_CHROMIUM") == "1":
        pytest.fail("PYGOLF_REQUIRE_CHROMIUM is 1, but there is no chromium; 'apt-get install chromium'")
    return found or pytest.skip("no chromium")


def render(chromium: str, page: Path, folder: Path, width: int = 1280) -> Rendered:
    """Opens a copy of the page, with the probe in it, `width` pixels wide."""
    probed = folder / f"probed-{width}.html"
    text = page.read_text(encoding="utf-8").replace("</body>", PROBE.replace("WIDTH", str(width)) + "</body>")
    probed.write_text(text, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,1000"]
    options += [f"--user-data-dir={folder / 'chromium'}", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run([chromium, *options, probed.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = re.search(r'data-probe="([^"]*)"', done.stdout)
    log = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Rendered(json.loads(html.unescape(found[1])) if found else {}, done.stdout, log)


@pytest.mark.parametrize("width", [390, 1280])
def test_every_chart_is_drawn_at_phone_and_desktop_width(chromium: str, full: Path, tmp_path: Path, width: int) -> None:
    rendered = render(chromium, write_page(full), tmp_path, width)
    assert rendered.log == []
    assert {chart["title"] for chart in rendered.probe["charts"]} == EVERY_CHART
    for chart in rendered.probe["charts"]:
        assert chart["marks"] > 0, chart
        assert chart["axes"] > 0, chart
        assert chart["described"], chart
        assert chart["readout"], chart
        assert chart["outside"] == chart["clashes"] == [], chart
    assert rendered.probe["overflow"] <= 0


def test_the_probe_sees_a_page_that_is_broken(chromium: str, full: Path, tmp_path: Path) -> None:
    page = write_page(full)
    text = page.read_text(encoding="utf-8")
    broken = re.sub(r'(<path class="line[^>]*) d="[^"]*"', r"\1", text).replace("dataset.points", "nothing.points")
    page.write_text(broken.replace("</main>", '<img src="https://example.org/x.png"></main>'), encoding="utf-8")
    rendered = render(chromium, page, tmp_path)
    assert any("TypeError" in line or "ReferenceError" in line for line in rendered.log)
    assert any("Content Security Policy" in line for line in rendered.log)  # the page cannot even ask for a file
    assert [c["marks"] for c in rendered.probe["charts"] if c["title"] == "Learning rate"] == [0]


def test_a_run_writes_its_page(finished: Run, chromium: str, tmp_path: Path) -> None:
    rendered = render(chromium, finished.folder / "report.html", tmp_path)
    assert rendered.log == []
    assert len(rendered.probe["charts"]) >= 7
    assert all(chart["marks"] for chart in rendered.probe["charts"])
    report = json.loads((finished.folder / "report.json").read_text())
    assert f"{report['bpb']:.4f}" in rendered.dom
    assert len(report["samples"]) == rendered.dom.count("<h3>Sample ") == 3


def test_text_of_models_and_documents_is_only_text(full: Path) -> None:
    page = write_page(full).read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script") == 1
    assert "&lt;/script&gt;" in page
    assert not re.findall(r"""(?:src|href)=|url\(|@import""", page)  # one file


def test_the_page_says_what_the_score_is_worth(full: Path) -> None:
    report = json.loads((full / "report.json").read_text())
    page = write_page(full).read_text(encoding="utf-8")
    left = report["budget_bytes"] - report["artifact_bytes"] - report["code_bytes"]
    for text in (f"{left:,}", "2 seeds", f"{report['bpb'] + 0.01:.4f}", ">clean<", "batch_tokens"):
        assert text in page, text
    found = {"status": "seen", "fitted_tokens": 1234, "copied_tokens": 0, "bpb_clean": 3.5, "shards": 1, "compared": 1}
    (full / "report.json").write_text(json.dumps({**report, "seen": True, "provenance": found}))
    page = write_page(full).read_text(encoding="utf-8")
    for text in ("SEEN: 1,234 were fitted", ">seen<", "Clean part alone", "3.5000"):
        assert text in page, text


def test_reports_of_older_versions_lack_only_what_they_did_not_record(full: Path) -> None:
    for name in ("documents.safetensors", "verify.json", "metrics.jsonl", "model.golf", "stages.json"):
        (full / name).unlink()
    report = json.loads((full / "report.json").read_text())
    new = ("positions", "samples", "worst_documents", "adaptive", "provenance", "stage_records")
    (full / "report.json").write_text(json.dumps({k: v for k, v in report.items() if k not in new}))
    titles = set(re.findall(r"<h3>([^<]*)</h3>", write_page(full).read_text(encoding="utf-8")))
    assert titles == {"Bits per byte after each stage", "Time line"}
