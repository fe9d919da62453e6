"""Commands that make and continue run folders: demo, run, train, adapt, quantize."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console

from pygolf.commands.seeds import check_same_run, seeds_table, take_seeds, with_seed
from pygolf.config import AdaptConfig, QuantConfig, RunConfig
from pygolf.config_file import dump_toml
from pygolf.errors import ConfigError
from pygolf.files import read_json, write_text
from pygolf.live import open_live
from pygolf.presets import PRESETS

if TYPE_CHECKING:
    from pygolf.pipeline import Run
    from pygolf.runtime import Runtime

# torch and the pipeline are imported inside the functions, so that --help answers at once.


def run(arguments: Sequence[str]) -> None:
    """All stages: train, adapt, quantize, score. `run PRESET [options]` starts, `run --resume DIR` goes on.

    With --seeds 1337,42,2025 there is one run a seed, in folders NAME-SEED; the same command again goes on with them.
    """
    seeds, arguments = take_seeds(arguments)
    config, resumed = _config_or_resume(run, arguments)
    if not seeds:
        _work(config, resumed, _run_all)
    elif resumed:
        raise ConfigError("--seeds makes runs of a preset; --resume goes on with one run. Use one of them")
    else:
        _run_seeds([with_seed(config, seed) for seed in seeds])


def train(arguments: Sequence[str]) -> None:
    """The training stage alone. `train PRESET [options]` starts, `train --resume DIR` goes on."""
    config, resumed = _config_or_resume(train, arguments)
    _work(config, resumed, _train_unless_done)


def adapt(arguments: Sequence[str]) -> None:
    """The adaptation stage of a run folder, with other settings if given: `adapt DIR [--epochs 5 ...]`."""
    _restage(adapt, "adapt", AdaptConfig, arguments)


def quantize(arguments: Sequence[str]) -> None:
    """Calibration, coding and packing of a run folder: `quantize DIR [--budget-bytes 8000000 ...]`."""
    _restage(quantize, "quant", QuantConfig, arguments)


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
    _work(config, False, lambda work: _run_all(work, reference))
    print(f'Try: pygolf generate {config.folder}/model.golf --prompt "It was a"')


def _config_or_resume(command: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> tuple[RunConfig, bool]:
    """The config of a new run from a preset and options, or of the run folder behind --resume."""
    if arguments and arguments[0] == "--resume":
        from pygolf.pipeline import open_run

        if len(arguments) != 2:
            raise ConfigError(
                f"use 'pygolf {command.__name__} --resume DIR', without other options: the run keeps its config"
            )
        return open_run(Path(arguments[1])), True
    presets = {name: ((preset.__doc__ or "").split("\n")[0], preset()) for name, preset in PRESETS.items()}
    config = tyro.extras.overridable_config_cli(
        presets, prog=f"pygolf {command.__name__}", description=command.__doc__ or "", args=list(arguments)
    )
    return config, False


def _work(config: RunConfig, resumed: bool, action: Callable[[Run], None]) -> None:
    """Opens the run folder on every rank and does the action there."""
    from pygolf.runtime import launch

    with launch(config.runtime) as runtime:
        _work_on(config, resumed, action, runtime)


def _run_seeds(configs: Sequence[RunConfig]) -> None:
    """One run behind the other, in one process group; those that are done are only read."""
    from pygolf.pipeline import open_run
    from pygolf.runtime import launch

    existing = [(config.folder / "config.toml").exists() for config in configs]
    for config in (c for c, exists in zip(configs, existing, strict=True) if exists):
        check_same_run(config, open_run(config.folder))
    with launch(configs[0].runtime) as runtime:
        for config, exists in zip(configs, existing, strict=True):
            _work_on(config, exists, _run_all, runtime)
        if runtime.is_main:
            Console().print(seeds_table([read_json(config.folder / "report.json") for config in configs]))


def _work_on(config: RunConfig, resumed: bool, action: Callable[[Run], None], runtime: Runtime) -> None:
    from pygolf.pipeline import Run, create_run
    from pygolf.progress import Reporter

    with Reporter(config.folder / "metrics.jsonl", enabled=runtime.is_main) as reporter:
        if runtime.is_main:
            reporter.show_live(open_live(config.runtime.live, config.folder, config.sections()))
        work = Run(config, runtime, reporter)
        if not resumed:
            create_run(work)
        action(work)


def _restage(
    command: Callable[[Sequence[str]], None], section: str, settings: type[Any], arguments: Sequence[str]
) -> None:
    """Redoes one stage of a run folder with changed settings, which become the run's."""
    from pygolf.pipeline import open_run

    wants_help = not arguments or arguments[0] in ("-h", "--help")
    config = RunConfig() if wants_help else open_run(Path(arguments[0]))
    changed = tyro.cli(
        settings,
        prog=f"pygolf {command.__name__} DIR",
        description=command.__doc__,
        default=getattr(config, section),
        args=["--help"] if wants_help else list(arguments[1:]),
    )
    config = dataclasses.replace(config, **{section: changed})

    def redo(work: Run) -> None:
        if work.runtime.is_main:
            write_text(work.folder / "config.toml", dump_toml(config))
        work.stage(command.__name__)

    _work(config, True, redo)


def _free_name(config: RunConfig) -> str:
    """The run's name, or name-2, name-3 ... if there are such runs already."""
    name, count = config.name, 1
    while (config.runs / name).exists():
        count += 1
        name = f"{config.name}-{count}"
    return name


def _train_unless_done(work: Run) -> None:
    if "train" in work.records:
        work.reporter.say(f"{work.folder}: training is done; go on with 'pygolf run --resume {work.folder}'")
    else:
        work.stage("train")


def _run_all(work: Run, compressors: dict[str, float] | None = None) -> None:
    """Every stage that is not done, then the report, once and not on every rank."""
    from pygolf.report.report import report_table

    report = work.run()
    if work.runtime.is_main:
        Console().print(report_table(report, compressors))
