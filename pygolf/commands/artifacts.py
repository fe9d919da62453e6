"""Commands that use an artifact: score, inspect, generate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from tyro.conf import Positional

from pygolf.config import RuntimeConfig, ScoreConfig
from pygolf.files import write_json

Device = Literal["auto", "cpu", "cuda"]

# torch and the pipeline are imported inside the functions, so that --help answers at once.


def score(arguments: Sequence[str]) -> None:
    """Scores an artifact file on the validation shards of a data folder: `score FILE --data DIR`."""

    def command(
        artifact: Positional[Path],
        data: Path,
        tokenizer: Path | None = None,
        val_tokens: int = 0,
        device: Device = "auto",
        json_out: Path | None = None,
        settings: Annotated[ScoreConfig, tyro.conf.arg(name="")] = ScoreConfig(),  # noqa: B008
    ) -> None:
        """Scores an artifact file.

        Args:
            artifact: the .golf file.
            data: folder with val shards and the tokenizer.
            tokenizer: SentencePiece model, if it is not the only *.model of the data folder.
            val_tokens: tokens to score from the start of the split; 0 for all.
            device: where to run.
            json_out: also write the figures to this file.
            settings: the window.
        """
        from pygolf.pipeline import launched
        from pygolf.report.report import figures_table
        from pygolf.standalone import score_folder

        with launched(RuntimeConfig(device=device)) as (runtime, reporter):
            figures = score_folder(artifact, data, tokenizer, val_tokens, settings, runtime, reporter)
        if runtime.is_main:
            Console().print(figures_table(figures))
            if json_out is not None:
                write_json(json_out, figures)

    tyro.cli(command, prog="pygolf score", args=list(arguments))


def inspect(arguments: Sequence[str]) -> None:
    """What is in an artifact: its tensors, bytes and manifest; --check decodes everything: `inspect FILE`."""

    def command(artifact: Positional[Path], check: bool = False, manifest: bool = False) -> None:
        """Shows an artifact.

        Args:
            artifact: the .golf file.
            check: verify every checksum and decode every tensor.
            manifest: print the manifest as JSON instead of the table.
        """
        from pygolf._core import ArtifactReader
        from pygolf.report.inspect import artifact_table

        reader = ArtifactReader(str(artifact))
        if check:
            reader.check()
        if manifest:
            print(json.dumps(json.loads(reader.manifest), indent=2))
        else:
            Console().print(artifact_table(reader))
        if check:
            print(f"{artifact}: every checksum holds and all {len(reader.tensors)} tensors decode")

    tyro.cli(command, prog="pygolf inspect", args=list(arguments))


def generate(arguments: Sequence[str]) -> None:
    """Samples text from an artifact: `generate FILE --prompt "Once upon a time"`."""

    def command(
        artifact: Positional[Path],
        prompt: str = "",
        tokens: int = 200,
        temperature: float = 0.8,
        top_k: int = 0,
        seed: int = 1337,
        tokenizer: Path | None = None,
        device: Device = "auto",
    ) -> None:
        """Samples text.

        Args:
            artifact: the .golf file.
            prompt: text to continue; empty for the beginning of a document.
            tokens: how many tokens to sample.
            temperature: 0 takes the likeliest token.
            top_k: draw among this many likeliest tokens; 0 for all.
            seed: seed of the draw.
            tokenizer: SentencePiece model; default: the *.model beside the artifact.
            device: where to run.
        """
        from pygolf.pipeline import launched
        from pygolf.standalone import generate_text

        with launched(RuntimeConfig(device=device, compile="off")) as (runtime, _):
            print(
                generate_text(
                    artifact,
                    prompt,
                    tokenizer,
                    runtime,
                    tokens=tokens,
                    temperature=temperature,
                    top_k=top_k or None,
                    seed=seed,
                )
            )

    tyro.cli(command, prog="pygolf generate", args=list(arguments))
