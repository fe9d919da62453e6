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

from pygolf.config import RunConfig, RuntimeConfig
from pygolf.config_file import dump_toml, load_toml
from pygolf.data.loader import BatchLoader, TokenSpan, read_windows, take_windows
from pygolf.data.splits import RunData, open_data, split_prefix
from pygolf.errors import ConfigError, FormatError
from pygolf.files import read_json, write_bytes, write_json, write_text
from pygolf.journal import STAGES, Journal, build_manifest, utc_now
from pygolf.model.generate import sample_windows
from pygolf.model.gpt import GPT, initialize, place
from pygolf.progress import Reporter
from pygolf.quant.stage import calibrate, pack_model
from pygolf.report.page import write_page
from pygolf.report.report import build_report
from pygolf.report.samples import sample_texts
from pygolf.runtime import Runtime, launch
from pygolf.score.code_bytes import code_archive
from pygolf.score.documents import save_documents, sum_documents
from pygolf.score.provenance import Stage, token_ranges
from pygolf.score.score_file import FileScore, Text, read_text, score_file, text_nll
from pygolf.score.sliding import Score
from pygolf.score.verdict import judge, read_provenance
from pygolf.tensors import load_tensors, save_tensors
from pygolf.train.adapt import adapt
from pygolf.train.checkpoint import checkpoint_path, load_checkpoint
from pygolf.train.loop import Trainer, check_split


class Interrupted(KeyboardInterrupt):
    """Training stopped on request and wrote a checkpoint; the run can be resumed."""


@contextmanager
def launched(config: RuntimeConfig) -> Iterator[tuple[Runtime, Reporter]]:
    """Runtime and progress of this process; only rank 0 speaks."""
    with launch(config) as runtime, Reporter(enabled=runtime.is_main) as reporter:
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
        self.journal = Journal(self.folder, runtime)
        self._length = config.model.sequence_length
        self._microbatch = config.train.microbatch_tokens // self._length

    @cached_property
    def data(self) -> RunData:
        """Opened before any work, so that bad data costs nothing."""
        return open_data(self.config.data, self.config.model)

    @property
    def records(self) -> dict[str, Any]:
        """stages.json: what each finished stage found and which tokens it read."""
        return self.journal.records

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
        begun = self.journal.training_begun(resumed=checkpoint is not None)
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
            "reading": self._reading("train", "train", result.seconds, begun, "train", data.train),
            "bpb": self._score(model, 0).bpb,
        }
        self.journal.finish("train", record)
        checkpoint_path(self.folder).unlink(missing_ok=True)

    def adapt(self) -> None:
        """trained.safetensors -> adapted.safetensors."""
        settings, model = self.config.adapt, self._load_weights("trained")
        if settings.source == "none":
            self._save_weights("adapted", model, {})
            reading = self._reading("adapt", "adapt", 0.0, utc_now(), "train", [])
            self.journal.finish("adapt", {"seconds": {"adapt": 0.0}, "reading": reading})
            return
        started, begun = time.perf_counter(), utc_now()
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
            "reading": self._reading("adapt", "adapt", seconds, begun, split, spans),
            "bpb": self._score(result.model, 0).bpb,
        }
        self.journal.finish("adapt", record)

    def quantize(self) -> None:
        """adapted.safetensors -> model.golf, within the byte budget."""
        config, model = self.config, self._load_weights("adapted")
        started, begun = time.perf_counter(), utc_now()
        windows, spans = self._calibration_windows(model)
        moments = calibrate(
            model,
            windows,
            config.quant,
            self.runtime,
            microbatch_windows=self._microbatch,
            seed=config.seed,
            reporter=self.reporter,
        )
        self.runtime.synchronize()
        seconds = {"calibrate": time.perf_counter() - started}
        code_bytes = code_archive().archive_bytes
        reading = self._reading("quantize", "calibrate", seconds["calibrate"], begun, "train", spans)
        record: dict[str, Any] = {"seconds": seconds, "reading": reading, "code_bytes": code_bytes}
        if self.runtime.is_main:
            manifest = build_manifest(config, self.data.tokenizer, self.records, reading)
            started = time.perf_counter()
            packed = pack_model(
                model,
                moments,
                config.quant,
                manifest,
                allowed=config.quant.budget_bytes - code_bytes,
                threads=self._threads,
                reporter=self.reporter,
            )
            write_bytes(self.artifact, packed.data)
            seconds["quantize"] = time.perf_counter() - started
            record["errors"] = packed.errors
        self.journal.finish("quantize", record)

    def score(self) -> None:
        """model.golf, validation shards -> report.json, report.html. The weights come from the file alone."""
        unquantized = self._score(self._load_weights("adapted"), self.config.score.stride)
        started, begun = time.perf_counter(), utc_now()
        text = read_text(self.config, self.data)
        loading = time.perf_counter() - started
        result = score_file(self.artifact, text, self.config.score, self.runtime, self.reporter)
        result.seconds["score"] += loading
        record = self._conclude(text, result, unquantized, begun) if self.runtime.is_main else {}
        self.journal.finish("score", record)

    def _conclude(self, text: Text, result: FileScore, unquantized: Score, begun: str) -> dict[str, Any]:
        """Judges the score and writes what the run folder keeps of it; returns the stage's record."""
        started = time.perf_counter()
        shards = {digest: path for path, digest in self.data.digests.items()}
        provenance = read_provenance(self.artifact, result.manifest)
        verdict = judge(provenance, text, result.losses["nll"], shards, self.reporter)
        documents = sum_documents(text, result.losses)
        save_documents(self.folder, documents)
        seconds = {**result.seconds, "check": time.perf_counter() - started}
        reading = self.journal.reading("score", "score", sum(result.seconds.values()), begun, text.ranges)
        record = {"seconds": seconds, "reading": reading}
        records = {**self.records, "score": record}
        report = build_report(self.config, records, self.artifact, text, result, verdict, documents)
        report["bpb_unquantized"] = unquantized.bpb
        report["samples"] = sample_texts(self.artifact, self.data.tokenizer, self.runtime, self.config.seed)
        write_json(self.folder / "report.json", report)
        write_page(self.folder)
        return record

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

    def _reading(
        self, name: str, label: Stage, seconds: float, begun: str, split: str, spans: Sequence[TokenSpan]
    ) -> dict[str, Any]:
        ranges = token_ranges(label, split, spans, self.data.digests)
        return self.journal.reading(name, label, seconds, begun, ranges)

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
        """The validation tokens that the run scores."""
        return read_text(self.config, self.data)

    def _calibration_windows(self, model: GPT) -> tuple[Tensor, list[TokenSpan]]:
        """Windows [N, T + 1] for the Hessians and the spans that they are."""
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
        return read_windows(spans, self._length, vocab), spans

    def _score(self, model: GPT, stride: int) -> Score:
        """Stride 0: windows without overlap."""
        batch = self.config.score.batch_tokens
        text = self.scored_text
        return text.score(text_nll(model, text, stride, batch, self.runtime, self.reporter))


def _set_weights(model: GPT, tensors: dict[str, Tensor]) -> None:
    """Copies weights into the model. Raises FormatError if names or shapes do not match."""
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise FormatError(f"these weights are not of this run's model: {error}") from None
