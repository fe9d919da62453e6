"""A run, stage by stage: train -> adapt -> quantize -> score. Each stage reads the file of the one before it.

A stage is done when stages.json says so; a resumed run goes on with the first that is not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pygolf
from pygolf.config import RunConfig, RuntimeConfig, dump_toml, load_toml
from pygolf.data.loader import BatchLoader, TokenSpan, read_windows, take_windows
from pygolf.data.splits import RunData, join_tokens, open_data, split_prefix
from pygolf.errors import ConfigError, FormatError
from pygolf.files import read_json, write_bytes, write_json, write_text
from pygolf.model.generate import sample_windows
from pygolf.model.gpt import GPT, initialize, place
from pygolf.progress import Reporter
from pygolf.quant.artifact import packed_bytes, write_artifact
from pygolf.quant.budget import Fit, fit_budget
from pygolf.quant.gptq import QuantizedModel, quantize_model
from pygolf.quant.hessian import collect_hessians
from pygolf.report.plots import draw_training
from pygolf.report.report import versions
from pygolf.runtime import Runtime, launch
from pygolf.score.provenance import Stage, TokenRange
from pygolf.score.rules import code_archive
from pygolf.score.score_file import FileScore, Text, score_file, score_model
from pygolf.score.sliding import Score
from pygolf.tensors import load_tensors, save_tensors
from pygolf.train.adapt import adapt
from pygolf.train.checkpoint import checkpoint_path, load_checkpoint
from pygolf.train.loop import Trainer, check_split

STAGES = ("train", "adapt", "quantize", "score")


class Interrupted(KeyboardInterrupt):
    """Training stopped on request and wrote a checkpoint; the run can be resumed."""


@contextmanager
def launched(config: RuntimeConfig, metrics: Path | None = None) -> Iterator[tuple[Runtime, Reporter]]:
    """Runtime and progress of this process; only rank 0 speaks."""
    with launch(config) as runtime, Reporter(metrics, enabled=runtime.is_main) as reporter:
        yield runtime, reporter


def create_run(run: Run) -> None:
    """Makes the run folder with its config.toml. Raises ConfigError if it holds another run."""
    path = run.folder / "config.toml"
    if path.exists():
        raise ConfigError(
            f"{run.folder} already holds a run; go on with 'pygolf run --resume {run.folder}', or choose another --name"
        )
    run.runtime.barrier()
    if run.runtime.is_main:
        write_text(path, dump_toml(run.config))
    run.runtime.barrier()


def open_run(folder: Path) -> RunConfig:
    """The config of an existing run folder, wherever it has been moved."""
    config = load_toml(folder / "config.toml")
    return RunConfig(**{**vars(config), "name": folder.resolve().name, "runs": folder.resolve().parent})


class Run:
    """One run folder and the process that works on it. All ranks build one; only rank 0 writes files."""

    def __init__(self, config: RunConfig, runtime: Runtime, reporter: Reporter) -> None:
        check_split(config, runtime)
        self.config, self.runtime, self.reporter = config, runtime, reporter
        self.folder = config.folder
        self._length = config.model.sequence_length
        self._microbatch = config.train.microbatch_tokens // self._length

    @cached_property
    def data(self) -> RunData:
        """Opened before any work, so that bad data costs nothing."""
        return open_data(self.config.data, self.config.model)

    @property
    def records(self) -> dict[str, Any]:
        """stages.json: what each finished stage found and which tokens it read."""
        path = self.folder / "stages.json"
        return dict(read_json(path)) if path.exists() else {}

    def run(self) -> dict[str, Any]:
        """Every stage that is not done yet; returns the report. Raises Interrupted if training was stopped."""
        for name in STAGES:
            if name not in self.records:
                self.stage(name)
        return dict(read_json(self.folder / "report.json"))

    def stage(self, name: str) -> None:
        """One stage by its name."""
        self._keep_tokenizer()
        getattr(self, name)()

    # --- stages ------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """config.toml, shards -> trained.safetensors (averaged weights)."""
        config, data = self.config, self.data
        model = place(GPT(config.model), self.runtime)
        initialize(model, config.seed)
        checkpoint = load_checkpoint(self.folder)
        self.reporter.rewind("train", checkpoint.step if checkpoint else 0)
        trainer = Trainer(config, self.runtime, model, self._open_loader, self.folder, self.reporter)
        result = trainer.train(checkpoint)
        if result.interrupted:
            raise Interrupted(f"stopped at step {result.steps}; go on with 'pygolf run --resume {self.folder}'")
        _set_weights(model, result.weights)
        training = {"steps": result.steps, "tokens": result.tokens}
        self._save_weights("trained", model, {"training": training})
        record = {
            "seconds": {"train": result.seconds},
            "training": training,
            "provenance": self._ranges("train", "train", data.train),
            "bpb": self._score(model, 0).bpb,
        }
        self.finish("train", record)
        checkpoint_path(self.folder).unlink(missing_ok=True)

    def adapt(self) -> None:
        """trained.safetensors -> adapted.safetensors."""
        settings, model = self.config.adapt, self._load_weights("trained")
        if settings.source == "none":
            self._save_weights("adapted", model, {})
            self.finish("adapt", {"seconds": {"adapt": 0.0}, "provenance": []})
            return
        started = time.perf_counter()
        spans = self._adapt_spans()
        windows = read_windows(spans, self._length, self.config.model.vocab_size)
        result = adapt(
            model,
            windows,
            settings,
            self.runtime,
            seed=self.config.seed,
            microbatch_windows=self._microbatch,
            reporter=self.reporter,
        )
        seconds = time.perf_counter() - started
        self._save_weights("adapted", result.model, {"adapt_losses": result.epoch_losses})
        split = "train" if settings.source == "train" else "val"
        record = {
            "seconds": {"adapt": seconds},
            "source": settings.source,
            "losses": result.epoch_losses,
            "provenance": self._ranges("adapt", split, spans),
            "bpb": self._score(result.model, 0).bpb,
        }
        self.finish("adapt", record)

    def quantize(self) -> None:
        """adapted.safetensors -> model.golf, within the byte budget."""
        config, model = self.config, self._load_weights("adapted")
        started = time.perf_counter()
        windows, provenance = self._calibration_windows(model)
        hessians = collect_hessians(
            model, windows, self.runtime, microbatch_windows=self._microbatch, reporter=self.reporter
        )
        self.runtime.synchronize()
        seconds = {"calibrate": time.perf_counter() - started}
        code_bytes = code_archive().archive_bytes
        record: dict[str, Any] = {"seconds": seconds, "provenance": provenance, "code_bytes": code_bytes}
        if self.runtime.is_main:
            manifest = self.manifest(provenance)
            started = time.perf_counter()
            fit = self._fit(model, hessians, manifest, config.quant.budget_bytes - code_bytes)
            manifest["quantization"] = {"coarseness": fit.coarseness, "zeroed": fit.zeroed}
            write_artifact(self.artifact, fit.model, manifest, config.quant, self._threads)
            seconds["quantize"] = time.perf_counter() - started
            record["errors"] = {name: m.error for name, m in fit.model.matrices.items()}
        self.finish("quantize", record)

    def score(self) -> None:
        """model.golf, validation shards -> report.json, training.png. The weights come from the file alone."""
        text = self.scored_text
        unquantized = self._score(self._load_weights("adapted"), self.config.score.stride)
        started = time.perf_counter()
        result = score_file(self.artifact, text, self.config.score, self.runtime, self.reporter)
        self.finish("score", {"seconds": {"score": time.perf_counter() - started}})
        if self.runtime.is_main:
            write_json(self.folder / "report.json", self._report(result, unquantized))
            draw_training(self.folder / "metrics.jsonl", self.folder / "training.png")
        self.runtime.barrier()

    # --- what the stages share -----------------------------------------------------------------------------------

    @property
    def artifact(self) -> Path:
        return self.folder / "model.golf"

    @property
    def _threads(self) -> int:
        return self.config.runtime.threads

    def _keep_tokenizer(self) -> None:
        """The run folder carries its tokenizer, so that the artifact can be used from there."""
        if self.runtime.is_main:
            write_bytes(self.folder / "tokenizer.model", self.data.tokenizer.path.read_bytes())

    def _save_weights(self, name: str, model: GPT, record: dict[str, Any]) -> None:
        if self.runtime.is_main:
            save_tensors(self.folder / f"{name}.safetensors", dict(model.named_parameters()), record)

    def _load_weights(self, name: str) -> GPT:
        model = GPT(self.config.model)
        tensors, _ = load_tensors(self.folder / f"{name}.safetensors")
        _set_weights(model, tensors)
        return place(model, self.runtime)

    def finish(self, name: str, record: dict[str, Any]) -> None:
        """Marks a stage as done; stages behind it are no longer."""
        if self.runtime.is_main:
            before = {s: r for s, r in self.records.items() if STAGES.index(s) < STAGES.index(name)}
            write_json(self.folder / "stages.json", {**before, name: record})
        self.runtime.barrier()

    def _open_loader(self, state: list[int] | None) -> BatchLoader:
        return BatchLoader(
            self.data.train,
            self.runtime,
            seed=self.config.seed,
            length=self._length,
            windows=self.config.train.batch_tokens // self._length,
            vocab_size=self.config.model.vocab_size,
            mixing_ranks=self.config.data.mixing_ranks,
            state=state,
        )

    def _ranges(self, stage: Stage, split: str, spans: Sequence[TokenSpan]) -> list[dict[str, Any]]:
        return [r.to_dict() for r in token_ranges(stage, split, spans, self.data)]

    def _adapt_spans(self) -> list[TokenSpan]:
        data, settings = self.data, self.config.adapt
        if settings.source == "val":
            return data.val
        if settings.source == "val-prefix":
            return split_prefix(data.val, settings.val_fraction)[0]
        calibration = self.config.quant.calibration_windows if self.config.quant.calibration == "train" else 0
        return take_windows(data.holdout, self._length, 0, self.config.data.holdout_windows - calibration)

    @cached_property
    def scored_text(self) -> Text:
        """The validation tokens; under val-prefix, those that adaptation did not read."""
        spans = self.data.val
        if self.config.adapt.source == "val-prefix":
            spans = split_prefix(spans, self.config.adapt.val_fraction)[1]
        ranges = token_ranges("score", "val", spans, self.data)
        return Text(join_tokens(spans, self.config.model.vocab_size), self.data.tokenizer, ranges)

    def _calibration_windows(self, model: GPT) -> tuple[Tensor, list[dict[str, Any]]]:
        """Windows [N, T + 1] for the Hessians and the token ranges that they are."""
        settings, vocab = self.config.quant, self.config.model.vocab_size
        if settings.calibration == "selfgen":
            tokenizer = self.data.tokenizer
            # Padding, unknown and unused pieces never stand in a text.
            banned = set(tokenizer.token_bytes().is_boundary.nonzero()[0].tolist()) - {tokenizer.bos_id}
            ids = sample_windows(
                model,
                settings.calibration_windows,
                self._length,
                temperature=settings.selfgen_temperature,
                seed=self.config.seed,
                bos_id=tokenizer.bos_id,
                banned=banned,
            )
            return ids.to(torch.uint16).cpu(), []
        first = self.config.data.holdout_windows - settings.calibration_windows
        spans = take_windows(self.data.holdout, self._length, first, settings.calibration_windows)
        return read_windows(spans, self._length, vocab), self._ranges("calibrate", "train", spans)

    def _fit(self, model: GPT, hessians: dict[str, Tensor], manifest: dict[str, Any], allowed: int) -> Fit:
        settings = self.config.quant

        def solve(coarseness: float) -> QuantizedModel:
            return quantize_model(
                model,
                hessians,
                settings,
                coarseness=coarseness,
                threads=self._threads,
                reporter=self.reporter,
            )

        def measure(quantized: QuantizedModel) -> int:
            # Room for what the fit itself adds to the manifest.
            draft = {
                **manifest,
                "quantization": {"coarseness": 1.2345678901234567, "zeroed": quantized.codes},
            }
            return packed_bytes(quantized, draft, settings, self._threads)

        return fit_budget(solve, measure, allowed)

    def manifest(self, calibration: list[dict[str, Any]]) -> dict[str, Any]:
        sections, records = self.config.sections(), self.records
        return {
            "pygolf": pygolf.__version__,
            "model": sections["model"],
            "tokenizer": {"sha256": self.data.tokenizer.digest, "vocab_size": self.data.tokenizer.vocab_size},
            "provenance": [*records["train"]["provenance"], *records["adapt"]["provenance"], *calibration],
            "adapt_source": self.config.adapt.source,
            "training": records["train"]["training"],
            "config": {name: sections[name] for name in ("seed", "train", "adapt", "quant")},
            "versions": versions(),
        }

    def _score(self, model: GPT, stride: int) -> Score:
        """Stride 0: windows without overlap."""
        batch = self.config.score.batch_tokens
        return score_model(model, self.scored_text, stride, batch, self.runtime, self.reporter)

    def _report(self, result: FileScore, unquantized: Score) -> dict[str, Any]:
        records = self.records
        stages = {k: seconds for r in records.values() for k, seconds in r["seconds"].items()}
        return {
            **result.to_dict(),
            "bpb_unquantized": unquantized.bpb,
            "bpb_after": {name: records[name]["bpb"] for name in ("train", "adapt") if "bpb" in records[name]},
            "artifact_bytes": self.artifact.stat().st_size,
            "code_bytes": records["quantize"]["code_bytes"],
            "budget_bytes": self.config.quant.budget_bytes,
            "stages": stages,
            "training": records["train"]["training"],
            "seed": self.config.seed,
            "config": self.config.sections(),
            "versions": versions(),
        }


def _set_weights(model: GPT, tensors: dict[str, Tensor]) -> None:
    """Copies weights into the model. Raises FormatError if names or shapes do not match."""
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise FormatError(f"these weights are not of this run's model: {error}") from None


def token_ranges(stage: Stage, split: str, spans: Sequence[TokenSpan], data: RunData) -> list[TokenRange]:
    """Spans as provenance records."""
    return [TokenRange(stage, split, s.path.name, data.digests[s.path], s.begin, s.end) for s in spans]
