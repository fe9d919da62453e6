"""A whole run on real text: figures, provenance, determinism, several ranks, and what happens when things go wrong."""

from __future__ import annotations

import dataclasses
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pygolf._core import ArtifactReader
from pygolf.config import AdaptConfig, DataConfig, QuantConfig, RunConfig
from pygolf.data.shards import write_shard
from pygolf.errors import BudgetError, ConfigError, DataError, FormatError, IoError, NonFiniteLossError
from pygolf.pipeline import Run, create_run, open_run
from pygolf.presets import tiny
from pygolf.progress import Reporter
from pygolf.runtime import Runtime
from pygolf.score.code_bytes import code_digest
from pygolf.score.score_file import score_file
from pygolf.tensors import load_tensors

GOLDEN_LOSSES = [6.9309, 6.8511, 6.3599, 6.1747, 6.1046]
CPU = Runtime(torch.device("cpu"))


def config_of(data: Path, runs: Path, **changes: Any) -> RunConfig:
    settings = DataConfig(path=data, holdout_windows=24, val_tokens=1_025)
    return dataclasses.replace(tiny(), data=settings, runs=runs, **changes)


def opened(config: RunConfig, runtime: Runtime = CPU) -> Run:
    run = Run(config, runtime, Reporter(enabled=False))
    create_run(run)
    return run


def test_report_has_every_figure(finished: Run) -> None:
    report = json.loads((finished.folder / "report.json").read_text())
    expected = (
        "bpb bpb_plain bpb_unquantized val_loss tokens_scored bytes_scored seen artifact_bytes code_bytes "
        "budget_bytes stages config versions seed"
    )
    assert set(expected.split()) <= set(report)
    assert report["tokens_scored"] == 1_024
    assert report["seen"] is False
    assert report["artifact_bytes"] == finished.artifact.stat().st_size
    assert set(report["stages"]) == {"train", "adapt", "calibrate", "quantize", "score", "score_plain", "check"}
    assert report["bpb"] == pytest.approx(report["bpb_unquantized"], rel=0.02)
    assert 0 < report["bpb"] < 5


def test_score_comes_from_the_file_alone(finished: Run) -> None:
    report = json.loads((finished.folder / "report.json").read_text())
    again = score_file(finished.artifact, finished.scored_text, finished.config.score, CPU, finished.reporter)
    assert again.sliding.bpb == report["bpb"]
    for name in ("trained.safetensors", "adapted.safetensors"):
        assert (finished.folder / name).exists()


def manifest_of(run: Run) -> dict[str, Any]:
    return dict(json.loads(ArtifactReader(str(run.artifact)).manifest))


def test_manifest_says_what_was_read_and_when(finished: Run) -> None:
    manifest = manifest_of(finished)
    ranges = manifest["provenance"]
    assert {r["stage"] for r in ranges} == {"train", "adapt", "calibrate"}
    trained = {r["shard"]: r["end"] for r in ranges if r["stage"] == "train"}
    held = [r for r in ranges if r["stage"] != "train"]
    assert all(r["begin"] >= trained[r["shard"]] for r in held)  # adaptation read nothing that training read
    stages = manifest["stages"]
    assert [s["stage"] for s in stages] == ["train", "adapt", "calibrate"]
    clocks = [second for s in stages for second in s["clock"]]
    assert clocks[0] == 0
    assert clocks == sorted(clocks)
    times = [time for s in stages for time in s["utc"]]
    assert times == sorted(times)
    assert all(s["code_sha256"] == code_digest() and s["ranks"] == 1 and "cpu" in s["device"] for s in stages)


def assert_same_artifact(one: Path, two: Path) -> None:
    """Equal but for the times that the manifest tells of."""
    readers = [ArtifactReader(str(path)) for path in (one, two)]
    manifests = [json.loads(reader.manifest) for reader in readers]
    for manifest in manifests:
        for stage in manifest["stages"]:
            del stage["clock"], stage["utc"]
    assert manifests[0] == manifests[1]
    names = [[t.name for t in reader.tensors] for reader in readers]
    assert names[0] == names[1]
    for name in names[0]:
        assert np.array_equal(*(reader.dequantize(name) for reader in readers)), name


def test_same_seed_gives_the_same_artifact(finished: Run, tmp_path: Path) -> None:
    again = opened(dataclasses.replace(finished.config, runs=tmp_path))
    again.run()
    assert_same_artifact(again.artifact, finished.artifact)


@pytest.mark.parametrize(
    ("source", "seen", "tokens"), [("val", True, 1_024), ("val-prefix", False, 922), ("none", False, 1_024)]
)
def test_seen_tokens_are_called_seen(source: Any, seen: bool, tokens: int, finished: Run, tmp_path: Path) -> None:
    adapt = AdaptConfig(source=source, epochs=1, windows_per_step=4, val_fraction=0.1)
    run = opened(dataclasses.replace(finished.config, runs=tmp_path, adapt=adapt))
    for name in ("trained.safetensors", "stages.json"):
        (run.folder / name).write_bytes((finished.folder / name).read_bytes())
    run.journal.finish("train", finished.records["train"])
    report = run.run()
    assert (report["seen"], report["tokens_scored"]) == (seen, tokens)
    assert report["seen_tokens"] == (tokens if seen else 0)


# --- resume ----------------------------------------------------------------------------------------------------------


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pygolf", *arguments]


def weights(folder: Path, name: str = "trained") -> dict[str, torch.Tensor]:
    return load_tensors(folder / f"{name}.safetensors")[0]


@pytest.mark.slow
def test_killed_runs_resume_to_the_same_bits(data_folder: Path, tmp_path: Path) -> None:
    """kill -9 at 10 random moments of a run; what comes out in the end is what an undisturbed run gives."""
    options = ["--data.path", str(data_folder), "--data.val-tokens", "513", "--runtime.threads", "1"]
    options += ["--train.max-steps", "60", "--adapt.epochs", "1", "--runs", str(tmp_path)]
    subprocess.run(command("run", "tiny", "--name", "whole", *options), check=True, capture_output=True)
    rng, kills = np.random.default_rng(0), 0
    arguments = command("run", "tiny", "--name", "killed", *options)
    folder = tmp_path / "killed"
    while kills < 10:
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for_progress(folder, process)
        try:
            process.wait(timeout=rng.uniform(0.0, 0.6))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        else:
            assert process.returncode == 0
            break
        arguments = command("run", "--resume", str(folder))
    subprocess.run(command("run", "--resume", str(folder)), check=True, capture_output=True)
    assert kills == 10
    for name in ("trained", "adapted"):
        expected, found = weights(tmp_path / "whole", name), weights(folder, name)
        assert all(torch.equal(expected[key], found[key]) for key in expected), name
    assert_same_artifact(folder / "model.golf", tmp_path / "whole" / "model.golf")


def _wait_for_progress(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the process has written something new: a step, a checkpoint or a stage."""

    def newest() -> float:
        return max((p.stat().st_mtime for p in folder.rglob("*") if p.is_file() and p.suffix != ".model"), default=0)

    begin = newest()
    while process.poll() is None and (newest() == begin or not (folder / "config.toml").exists()):
        time.sleep(0.01)


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(data_folder: Path, tmp_path: Path) -> None:
    options = ["--data.path", str(data_folder), "--runs", str(tmp_path), "--train.max-steps", "100000"]
    arguments = command("train", "tiny", "--name", "stopped", "--train.checkpoint-seconds", "1000", *options)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folder = tmp_path / "stopped"
    while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").stat().st_size:
        assert process.poll() is None, process.stderr and process.stderr.read()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"pygolf run --resume {folder}" in stderr
    assert (folder / "checkpoint" / "state.safetensors").exists()


# --- ranks -----------------------------------------------------------------------------------------------------------


def test_ranks_that_cannot_share_the_batch_are_an_error(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"8 windows of 64 tokens, which 3 ranks cannot share"):
        opened(config_of(data_folder, tmp_path), Runtime(torch.device("cpu"), 0, 3))


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_second_run_of_that_name_is_refused(finished: Run) -> None:
    before = finished.artifact.read_bytes()
    with pytest.raises(ConfigError, match="already holds a run; go on with"):
        opened(finished.config)
    assert finished.artifact.read_bytes() == before


@pytest.mark.parametrize("missing", ["all", "train", "val", "tokenizer"])
def test_missing_data_is_named(missing: str, data_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    if missing != "all":
        folder.mkdir()
        for path in data_folder.iterdir():
            if not path.name.startswith(missing):
                (folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=str(folder)):
        opened(config_of(folder, tmp_path)).run()


def damaged(data_folder: Path, folder: Path, change: Any) -> Path:
    folder.mkdir()
    for path in data_folder.iterdir():
        content = bytearray(path.read_bytes())
        (folder / path.name).write_bytes(change(content) if path.name == "train_000001.bin" else content)
    return folder


def test_broken_shards_are_errors_before_any_work(data_folder: Path, tmp_path: Path) -> None:
    cut = damaged(data_folder, tmp_path / "cut", lambda content: content[:-2])
    with pytest.raises(FormatError, match=r"\[S4\].*train_000001"):
        opened(config_of(cut, tmp_path, name="a")).run()
    magic = damaged(data_folder, tmp_path / "magic", lambda content: b"\0" + content[1:])
    with pytest.raises(FormatError, match=r"\[S2\].*train_000001"):
        opened(config_of(magic, tmp_path, name="b")).run()


def test_ids_beyond_the_vocabulary_are_an_error(data_folder: Path, tmp_path: Path) -> None:
    folder = damaged(data_folder, tmp_path / "data", lambda content: content)
    write_shard(folder / "train_000001.bin", np.full(16_000, 1_024, dtype=np.uint16))
    with pytest.raises(FormatError, match=r"\[S7\].*train_000001.*1024"):
        opened(config_of(folder, tmp_path)).run()


def test_a_tokenizer_of_another_size_or_digest_is_refused(finished: Run, tmp_path: Path) -> None:
    model = dataclasses.replace(finished.config.model, vocab_size=512)
    with pytest.raises(ConfigError, match=r"tokenizer has 1024 pieces, but model.vocab_size is 512"):
        opened(dataclasses.replace(finished.config, model=model, runs=tmp_path)).run()
    text = finished.scored_text
    other = type("Other", (), {"digest": "0" * 64, "path": "other.model", "token_bytes": text.tokenizer.token_bytes})
    with pytest.raises(ConfigError, match=r"trained with the tokenizer of digest .* other\.model"):
        score_file(
            finished.artifact,
            dataclasses.replace(text, tokenizer=other()),
            finished.config.score,
            CPU,
            finished.reporter,
        )


def test_a_budget_too_small_says_by_how_many_bytes(finished: Run, tmp_path: Path) -> None:
    run = opened(
        dataclasses.replace(
            finished.config, runs=tmp_path, quant=QuantConfig(budget_bytes=90_000, zstd_level=3, calibration_windows=8)
        )
    )
    for name in ("adapted.safetensors", "stages.json"):
        (run.folder / name).write_bytes((finished.folder / name).read_bytes())
    with pytest.raises(BudgetError, match=r"[\d,]+ too many"):
        run.quantize()
    assert not run.artifact.exists()


def test_nan_stops_training_and_keeps_the_checkpoint(data_folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from pygolf.train import loop

    run, steps = opened(config_of(data_folder, tmp_path)), 0
    real = loop.accumulate_gradients

    def poisoned(*arguments: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        return real(*arguments) * (torch.nan if steps == 5 else 1.0)

    monkeypatch.setattr(loop, "accumulate_gradients", poisoned)
    with pytest.raises(NonFiniteLossError, match=r"loss nan.* at step 4; the last checkpoint"):
        run.train()
    tensors, record = load_tensors(run.folder / "checkpoint" / "state.safetensors")
    assert record["step"] == 4
    assert all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())


def test_a_full_disk_loses_nothing(finished: Run, tmp_path: Path) -> None:
    """A file-size limit stands in for a full disk: the stage fails, what was there stays, no half file is left."""
    folder = tmp_path / "run"
    folder.mkdir()
    for path in finished.folder.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    before = (folder / "model.golf").read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = Run(open_run(folder), CPU, Reporter(enabled=False))
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        with pytest.raises(IoError, match=r"model\.golf"):
            run.quantize()
        with pytest.raises(IoError, match=r"state\.safetensors"):
            run.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (folder / "model.golf").read_bytes() == before
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_self_generated_calibration_reads_no_tokens(finished: Run, tmp_path: Path) -> None:
    quant = dataclasses.replace(finished.config.quant, calibration="selfgen", calibration_windows=4)
    run = opened(dataclasses.replace(finished.config, runs=tmp_path, quant=quant))
    for name in ("adapted.safetensors", "stages.json"):
        (run.folder / name).write_bytes((finished.folder / name).read_bytes())
    run.quantize()
    assert run.records["quantize"]["reading"]["reads"] == []
    run.score()
    report = json.loads((run.folder / "report.json").read_text())
    assert report["bpb"] == pytest.approx(report["bpb_unquantized"], rel=0.02)


def test_losses_are_those_of_the_golden_run(finished: Run) -> None:
    """Another result than this is another training: a change of data order, initialisation, optimizer or model."""
    lines = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["stage"] == "train"]
    assert len(losses) == 20
    assert losses[::4] == pytest.approx(GOLDEN_LOSSES, abs=5e-3)
