"""The command line. Each command is one function below; its options are that function's arguments or a config."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from pygolf.config import AdaptConfig, QuantConfig, RunConfig, RuntimeConfig, ScoreConfig, dump_toml
from pygolf.errors import ConfigError, PygolfError
from pygolf.files import write_json, write_text
from pygolf.presets import PRESETS

Positional = tyro.conf.Positional
Device = Literal["auto", "cpu", "cuda"]


# Imports of torch and of the pipeline stand inside the commands, so that --help answers at once.


def run(arguments: Sequence[str]) -> None:
    """All stages: train, adapt, quantize, score. `run PRESET [options]` starts, `run --resume DIR` goes on."""
    config, resumed = _config_or_resume("run", arguments)
    _work(config, resumed, lambda work: _show_report(work.run()))


def train(arguments: Sequence[str]) -> None:
    """The training stage alone. `train PRESET [options]` starts, `train --resume DIR` goes on."""
    config, resumed = _config_or_resume("train", arguments)
    _work(config, resumed, lambda work: work.stage("train"))


def adapt(arguments: Sequence[str]) -> None:
    """The adaptation stage of a run folder, with other settings if given: `adapt DIR [--epochs 5 ...]`."""
    _restage("adapt", AdaptConfig, arguments)


def quantize(arguments: Sequence[str]) -> None:
    """Calibration, GPTQ and packing of a run folder: `quantize DIR [--budget-bytes 8000000 ...]`."""
    _restage("quantize", QuantConfig, arguments, section="quant")


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
            data: folder with val shards; its *.model is the tokenizer unless --tokenizer or the artifact's folder has one.
            tokenizer: SentencePiece model.
            val_tokens: tokens to score from the start of the split; 0 for all.
            device: where to run.
            json_out: also write the figures to this file.
            settings: the window.
        """
        from pygolf.pipeline import score_folder

        with _launched(RuntimeConfig(device=device)) as (runtime, reporter):
            figures = score_folder(artifact, data, tokenizer, val_tokens, settings, runtime, reporter)
        if runtime.is_main:
            _show_figures(figures)
            if json_out is not None:
                write_json(json_out, figures)

    _cli(command, "score", arguments)


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

    _cli(command, "inspect", arguments)


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
        from pygolf.pipeline import generate_text

        with _launched(RuntimeConfig(device=device, compile="off")) as (runtime, _):
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

    _cli(command, "generate", arguments)


def demo(arguments: Sequence[str]) -> None:
    """Everything on the bundled corpus in minutes: train, adapt, quantize, pack, reload, score."""
    from pygolf.data.bundled import bundled_texts, materialize
    from pygolf.data.compressors import compressor_bits_per_byte

    config = tyro.cli(
        RunConfig, prog="pygolf demo", description=demo.__doc__, default=PRESETS["demo"](), args=arguments
    )
    config = dataclasses.replace(config, name=_free_name(config))
    materialize(config.data.path)
    reference = compressor_bits_per_byte("".join(bundled_texts("val")).encode())
    _work(config, False, lambda work: _show_report(work.run(), reference))
    print(f'Try: pygolf generate {config.folder}/model.golf --prompt "It was a"')


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "demo": demo,
    "run": run,
    "train": train,
    "adapt": adapt,
    "quantize": quantize,
    "score": score,
    "inspect": inspect,
    "generate": generate,
}


def main() -> None:
    """Entry point. Errors that a user can mend are one line on stderr and exit status 2; Ctrl-C is 130."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        raise SystemExit(0 if arguments else 2)
    if arguments[0] == "--version":
        from pygolf import __version__

        print(__version__)
        return
    command = COMMANDS.get(arguments[0])
    if command is None:
        print(f"error: no command {arguments[0]!r}\n\n{_usage()}", file=sys.stderr)
        raise SystemExit(2)
    try:
        command(arguments[1:])
    except PygolfError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]error:[/red] {escape(str(error))}")
        raise SystemExit(2) from None
    except KeyboardInterrupt as stopped:
        print(str(stopped) or "stopped; an unfinished run goes on with 'pygolf run --resume DIR'", file=sys.stderr)
        raise SystemExit(130) from None


def _usage() -> str:
    lines = ["usage: pygolf COMMAND [options]      (pygolf COMMAND --help shows them)", ""]
    for name, command in COMMANDS.items():
        lines.append(f"  {name:<10} {(command.__doc__ or '').strip()}")
    return "\n".join(lines)


def _cli(command: Callable[..., None], name: str, arguments: Sequence[str]) -> None:
    tyro.cli(command, prog=f"pygolf {name}", args=list(arguments))


def _config_or_resume(command: str, arguments: Sequence[str]) -> tuple[RunConfig, bool]:
    """The config of a new run from a preset and options, or of the run folder behind --resume."""
    if arguments and arguments[0] == "--resume":
        from pygolf.pipeline import open_run

        if len(arguments) != 2:
            raise ConfigError(f"use 'pygolf {command} --resume DIR', without other options: the run keeps its config")
        return open_run(Path(arguments[1])), True
    presets = {name: ((preset.__doc__ or "").split("\n")[0], preset()) for name, preset in PRESETS.items()}
    description = f"{COMMANDS[command].__doc__}"
    config = tyro.extras.overridable_config_cli(
        presets, prog=f"pygolf {command}", description=description, args=list(arguments)
    )
    return config, False


def _launched(config: RuntimeConfig, metrics: Path | None = None) -> Any:
    from pygolf.pipeline import launched

    return launched(config, metrics)


def _work(config: RunConfig, resumed: bool, action: Callable[[Any], None]) -> None:
    """Opens the run folder on every rank and does the action there."""
    from pygolf.pipeline import Run, create_run

    with _launched(config.runtime, config.folder / "metrics.jsonl") as (runtime, reporter):
        work = Run(config, runtime, reporter)
        if not resumed:
            create_run(work)
        action(work)


def _restage(
    stage: Literal["adapt", "quantize"], settings: type[Any], arguments: Sequence[str], section: str = ""
) -> None:
    """Redoes one stage of a run folder with changed settings, which become the run's."""
    from pygolf.pipeline import open_run

    section = section or stage
    wants_help = not arguments or arguments[0] in ("-h", "--help")
    config = RunConfig() if wants_help else open_run(Path(arguments[0]))
    changed = tyro.cli(
        settings,
        prog=f"pygolf {stage} DIR",
        description=COMMANDS[stage].__doc__,
        default=getattr(config, section),
        args=["--help"] if wants_help else list(arguments[1:]),
    )
    config = dataclasses.replace(config, **{section: changed})

    def work_on(work: Any) -> None:
        if work.runtime.is_main:
            write_text(work.folder / "config.toml", dump_toml(config))
        work.stage(stage)

    _work(config, True, work_on)


def _free_name(config: RunConfig) -> str:
    """The run's name, or name-2, name-3 ... if there are such runs already."""
    name, count = config.name, 1
    while (config.runs / name).exists():
        count += 1
        name = f"{config.name}-{count}"
    return name


def _show_report(report: dict[str, Any], compressors: dict[str, float] | None = None) -> None:
    from pygolf.report.report import report_table

    Console().print(report_table(report, compressors))


def _show_figures(figures: dict[str, Any]) -> None:
    from pygolf.report.report import figures_table

    Console().print(figures_table(figures))
