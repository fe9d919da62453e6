"""Each rule passes on an honest run and fails on a run that breaks it."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pygolf.cli import main
from pygolf.config import AdaptConfig, DataConfig, ScoreConfig
from pygolf.data.shards import write_shard
from pygolf.data.splits import open_data
from pygolf.files import read_json
from pygolf.pipeline import Run, create_run
from pygolf.progress import Reporter
from pygolf.runtime import Runtime
from pygolf.score import probes
from pygolf.score.documents import BLOCK_TARGETS
from pygolf.score.rules import RULES, Evidence, Limits, Verification, gather, verify_run

CPU = Runtime(torch.device("cpu"))
SILENT = Reporter(enabled=False)


@pytest.fixture(scope="module")
def evidence(finished: Run) -> Evidence:
    return gather(finished.folder, CPU, None, Limits(), SILENT)


def broken(found: Verification) -> list[str]:
    return [r.rule for r in found.results if r.status == "fail"]


def test_an_honest_run_breaks_no_rule(finished: Run) -> None:
    found = verify_run(finished.folder, CPU)
    assert found.passed
    assert {r.rule: r.status for r in found.results} == dict.fromkeys(RULES, "pass") | {"significance": "n/a"}
    assert "pygolf/score/score_file.py" in found.code_files


def reported(**changes: Any) -> Callable[[Evidence], Evidence]:
    return lambda e: dataclasses.replace(e, report={**e.report, **changes})


def limited(**changes: Any) -> Callable[[Evidence], Evidence]:
    return lambda e: dataclasses.replace(e, limits=dataclasses.replace(e.limits, **changes))


def with_model(name: str, change: Callable[..., Any]) -> Callable[[Evidence], Evidence]:
    """The artifact's model with one of its methods wrapped."""

    def apply(e: Evidence) -> Evidence:
        model = copy.deepcopy(e.loaded.model)
        method = getattr(model, name)
        setattr(model, name, lambda *arguments: change(method(*arguments)))
        return dataclasses.replace(e, loaded=dataclasses.replace(e.loaded, model=model))

    return apply


def other_text(e: Evidence) -> Evidence:
    tokens = e.text.tokens.copy()
    tokens[7] += 1
    return dataclasses.replace(e, text=dataclasses.replace(e.text, tokens=tokens))


def clock_turned_back(e: Evidence) -> Evidence:
    records = copy.deepcopy(e.report["stage_records"])
    records[0]["clock"][1] /= 2
    return dataclasses.replace(e, report={**e.report, "stage_records": records})


def no_time_for_it(e: Evidence) -> Evidence:
    """Report and manifest agree on a clock that the wall clock does not allow."""
    records, manifest = copy.deepcopy(e.report["stage_records"]), copy.deepcopy(e.loaded.manifest)
    for r in (records[0], manifest["stages"][0]):
        r["utc"], r["clock"] = ["2026-01-31T12:00:00Z", "2026-01-31T12:00:10Z"], [0.0, 500.0]
    loaded = dataclasses.replace(e.loaded, manifest=manifest)
    return dataclasses.replace(e, loaded=loaded, report={**e.report, "stage_records": records})


def best_of_two_passes(e: Evidence) -> Evidence:
    factor = np.where(np.arange(len(e.documents.blocks)) % 2, 1.0, 0.9).astype(np.float32)
    blocks = e.documents.blocks * factor
    nll = {"nll": np.array([blocks.sum(dtype=np.float64)])}
    return dataclasses.replace(e, documents=dataclasses.replace(e.documents, blocks=blocks, nll=nll))


def doctored_blocks(e: Evidence) -> Evidence:
    return dataclasses.replace(e, documents=dataclasses.replace(e.documents, blocks=e.documents.blocks * np.float32(2)))


def judged(status: str, fitted: int | None) -> Callable[[Evidence], Evidence]:
    changes: dict[str, Any] = {"status": status, "fitted_tokens": fitted}
    return lambda e: dataclasses.replace(e, verdict=dataclasses.replace(e.verdict, **changes))


BREAKS: list[tuple[str, Callable[[Evidence], Evidence], str]] = [
    ("bytes", limited(budget_bytes=100_000), "of 100,000"),
    ("bytes", reported(artifact_sha256="00" * 32), "not the file that was scored"),
    ("training time", limited(train_seconds=0.01), "s of 0.01: train"),
    ("training time", clock_turned_back, "not the one in the artifact's manifest"),
    ("training time", no_time_for_it, "worked 500.0 s within 10 s"),
    ("scoring time", limited(score_seconds=0.001), "of 0.001"),
    ("tokens once", reported(tokens_scored=1_024 + 31 * 64), "counts 3,008 scored tokens, the text has 1,024"),
    ("tokens once", other_text, "not the one that was scored"),
    ("text bytes", reported(bytes_scored=4_000), "4,000 counted"),
    ("loss ratio", reported(bpb=2.5), "val_loss / val_bpb is"),
    ("loss ratio", reported(val_loss=1.0), "the documents' mean is"),
    ("causality", with_model("hidden", lambda hidden: hidden.roll(-1, dims=1)), "move by"),
    ("normalisation", with_model("nll", lambda nll: 0.9 * nll), "within"),
    ("no update before score", judged("seen", 5), "5 scored tokens were trained on"),
    ("no update before score", judged("unknown", None), "does not say"),
    ("one pass", best_of_two_passes, "scored again in one pass"),
    ("one pass", doctored_blocks, "its documents"),
]


@pytest.mark.parametrize(("rule", "change", "figure"), BREAKS, ids=[f"{rule}: {f}" for rule, _, f in BREAKS])
def test_each_rule_can_be_broken(
    rule: str, change: Callable[[Evidence], Evidence], figure: str, evidence: Evidence
) -> None:
    assert RULES[rule](evidence)[0] is True
    kept, found = RULES[rule](change(evidence))
    assert kept is False
    assert figure in found


def test_adaptation_that_peeks_is_an_update_before_score(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    adaptive = reported(adaptive={"mode": "score-first"})(evidence)
    assert RULES["no update before score"](adaptive)[0] is True
    honest = probes.score_first_nll

    def peeking(model: Any, tokens: Any, *arguments: Any) -> Any:
        return honest(model, tokens, *arguments) + np.float32(tokens.mean() / 1000)

    monkeypatch.setattr(probes, "score_first_nll", peeking)
    kept, figure = RULES["no update before score"](adaptive)
    assert kept is False
    assert "score-first: earlier losses move by" in figure


def restarted(finished: Run, runs: Path, **changes: Any) -> Run:
    """A run with other settings that takes over the trained weights."""
    run = Run(dataclasses.replace(finished.config, runs=runs, **changes), CPU, SILENT)
    create_run(run)
    shutil.copy(finished.folder / "trained.safetensors", run.folder)
    run.journal.finish("train", finished.records["train"])
    return run


def test_adapting_on_the_scored_tokens_is_caught(finished: Run, tmp_path: Path) -> None:
    run = restarted(finished, tmp_path, adapt=AdaptConfig(source="val", epochs=1, windows_per_step=4))
    report = run.run()
    assert (report["provenance"]["status"], report["provenance"]["fitted_tokens"]) == ("seen", 1_024)
    assert report["provenance"]["bpb_clean"] is None
    assert broken(verify_run(run.folder, CPU)) == ["no update before score"]


def test_validation_text_inside_a_training_shard_is_found(finished: Run, tmp_path: Path) -> None:
    """301 tokens of the scored text, copied into a training shard that a run then learns from."""
    data = Path(shutil.copytree(finished.config.data.path, tmp_path / "data"))
    shards = open_data(DataConfig(path=data, holdout_windows=24), finished.config.model)
    tokens = [np.fromfile(data / f"{name}.bin", "<u2")[512:] for name in ("train_000001", "val_000000")]
    tokens[0][777 : 777 + 301] = tokens[1][333 : 333 + 301]
    write_shard(data / "train_000001.bin", tokens[0])
    run = Run(
        dataclasses.replace(
            finished.config,
            runs=tmp_path,
            data=dataclasses.replace(finished.config.data, path=data),
            train=dataclasses.replace(finished.config.train, max_steps=2),
            score=ScoreConfig(stride=64, batch_tokens=4_096),
        ),
        CPU,
        SILENT,
    )
    create_run(run)
    report = run.run()
    provenance = report["provenance"]
    assert (provenance["status"], provenance["fitted_tokens"], provenance["copied_tokens"]) == ("seen", 0, 300)
    assert provenance["copies"] == [{"begin": 333, "end": 634, "shard": "train_000001.bin", "at": 777}]
    assert (provenance["shards"], provenance["compared"]) == (len({s.path for s in shards.train}), 2)
    assert broken(verify_run(run.folder, CPU)) == ["no update before score"]


def test_blocks_cover_the_text(evidence: Evidence) -> None:
    again = probes.rescore(evidence.loaded.model, evidence.text.tokens, evidence.config.score)
    assert set(again) <= set(range(len(evidence.documents.blocks)))
    assert len(again) >= 4
    for block, nats in again.items():
        assert nats == pytest.approx(float(evidence.documents.blocks[block]), rel=1e-5), block
    assert len(evidence.documents.blocks) == -(-(len(evidence.text.tokens) - 1) // BLOCK_TARGETS)


def test_the_command_says_it_line_by_line_and_in_its_status(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    arguments = ["pygolf", "verify", str(folder), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    lines = capsys.readouterr().out.splitlines()
    assert [line[6:28].strip() for line in lines] == list(RULES)
    assert read_json(folder / "verify.json")["passed"] is True
    monkeypatch.setattr(sys, "argv", [*arguments, "--budget-bytes", "100000", "--files"])
    with pytest.raises(SystemExit, match="1"):
        main()
    out = capsys.readouterr().out
    assert "fail  bytes" in out
    assert "pygolf/model/gpt.py" in out
    assert json.loads((folder / "verify.json").read_text())["passed"] is False
