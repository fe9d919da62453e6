"""`pygolf run PRESET --seeds 1337,42,2025`: the same run once a seed, in folders NAME-SEED."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from pygolf.config import RunConfig
from pygolf.errors import ConfigError


def take_seeds(arguments: Sequence[str]) -> tuple[tuple[int, ...], list[str]]:
    """The seeds behind --seeds (none without it) and the other arguments. Raises ConfigError for a broken list."""
    rest, found = [], None
    waiting = False
    for argument in arguments:
        if waiting or argument.startswith("--seeds="):
            found, waiting = argument.removeprefix("--seeds="), False
        elif argument == "--seeds":
            found, waiting = "", True
        else:
            rest.append(argument)
    return (() if found is None else _parse(found)), rest


def _parse(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--seeds is {text!r}; use whole numbers with commas, as in --seeds 1337,42,2025") from None
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {text} names a seed twice; a second run of it says nothing new")
    return seeds


def with_seed(config: RunConfig, seed: int) -> RunConfig:
    """The config of one of the runs."""
    return dataclasses.replace(config, seed=seed, name=f"{config.name}-{seed}")


def check_same_run(config: RunConfig, existing: RunConfig) -> None:
    """Raises ConfigError if a folder of that name holds a run with other settings."""
    wanted, found = config.sections(), existing.sections()
    for name in wanted:
        # The folder itself may have been named in another way.
        if name != "runs" and wanted[name] != found[name]:
            raise ConfigError(
                f"{config.folder} holds a run with other settings of {name!r}; choose another --name for these seeds"
            )


def seeds_table(reports: Sequence[dict[str, Any]]) -> Table:
    """One line a seed, mean and standard deviation below."""
    from pygolf.score.stats import spread

    table = Table(title="all seeds", title_style="bold")
    for name in ("seed", "bits per byte", "val_loss (nats a token)", "scored tokens"):
        table.add_column(name, justify="right")
    for r in reports:
        table.add_row(str(r["seed"]), f"{r['bpb']:.5f}", f"{r['val_loss']:.5f}", r["provenance"]["status"])
    table.add_section()
    bpb, loss = spread([r["bpb"] for r in reports]), spread([r["val_loss"] for r in reports])
    table.add_row("mean", f"{bpb.mean:.5f}", f"{loss.mean:.5f}", "")
    if bpb.std is not None and loss.std is not None:
        table.add_row("standard deviation", f"{bpb.std:.5f}", f"{loss.std:.5f}", "")
    return table
