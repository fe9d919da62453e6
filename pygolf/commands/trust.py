"""Commands that say how far a score can be trusted: verify, compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from pygolf.commands.artifacts import Device
from pygolf.config import BUDGET_BYTES, RuntimeConfig
from pygolf.errors import ConfigError
from pygolf.files import write_json

if TYPE_CHECKING:
    from pygolf.score.compare import Comparison, Side
    from pygolf.score.stats import Spread

STYLES = {"pass": "green", "fail": "bold red", "n/a": "dim"}

# torch and scipy are imported inside the functions, so that --help answers at once.


def verify(arguments: Sequence[str]) -> None:
    """Checks a finished run against the challenge's rules; exit status 1 if one is broken: `verify RUN`."""

    def command(
        run: Positional[Path],
        data: Path | None = None,
        budget_bytes: int = BUDGET_BYTES,
        train_seconds: float = 600.0,
        score_seconds: float = 600.0,
        files: bool = False,
        device: Device = "auto",
    ) -> bool:
        """Checks a run and writes verify.json into its folder.

        Args:
            run: folder of a finished run.
            data: the data folder, if it is not where the run found it.
            budget_bytes: most bytes of artifact and code.
            train_seconds: most seconds of training and other use of training data.
            score_seconds: most seconds of scoring, with loading.
            files: also list every counted code file with its bytes.
            device: where the model is probed.
        """
        from pygolf.pipeline import launched
        from pygolf.score.rules import Limits, verify_run

        limits = Limits(budget_bytes=budget_bytes, train_seconds=train_seconds, score_seconds=score_seconds)
        with launched(RuntimeConfig(device=device, compile="off")) as (runtime, reporter):
            found = verify_run(run, runtime, data=data, limits=limits, reporter=reporter)
        console = Console(highlight=False, soft_wrap=True)
        for name, size in found.code_files.items() if files else ():
            console.print(f"      {size:>9,}  {name}", markup=False)
        for r in found.results:
            console.print(f"[{STYLES[r.status]}]{r.status:<4}[/]  {r.rule:<22}  {escape(r.figure)}")
        write_json(run / "verify.json", found.to_dict())
        return found.passed

    if not tyro.cli(command, prog="pygolf verify", args=list(arguments)):
        raise SystemExit(1)


def compare(arguments: Sequence[str]) -> None:
    """Compares runs with other runs on the same text: `compare RUN... --against RUN...`."""

    def command(
        runs: Positional[tuple[Path, ...]],
        against: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN...")],
        json_out: Path | None = None,
    ) -> None:
        """Compares two sets of runs: means over seeds, Welch's test and the same documents pair by pair.

        Args:
            runs: folders of finished runs, one a seed.
            against: folders of the runs that they are compared with.
            json_out: also write the figures to this file.
        """
        from pygolf.score.compare import compare as compare_runs
        from pygolf.score.compare import load_run

        if not runs or not against:
            raise ConfigError("name one run or more on each side: pygolf compare RUN... --against RUN...")
        found = compare_runs([load_run(run) for run in runs], [load_run(run) for run in against])
        Console().print(_table(found))
        if json_out is not None:
            write_json(json_out, found.to_dict())

    tyro.cli(command, prog="pygolf compare", args=list(arguments))


def _table(found: Comparison) -> Table:
    table = Table(title="negative differences: the first set is better", title_style="dim")
    for name in ("", "val_loss (nats a token)", "bits per byte"):
        table.add_column(name, justify="left" if not name else "right")
    for label, side in (("runs", found.runs), ("against", found.against)):
        table.add_row(_label(label, side), _spread(side.val_loss), _spread(side.bpb))
    table.add_section()
    table.add_row("difference", f"{found.nats:+.5f}", f"{found.bpb:+.5f}")
    if found.paired is not None:
        p = found.paired
        table.add_row(f"the same {p.documents:,} documents", f"{p.nats:+.5f}", f"{p.bpb:+.5f}")
        table.add_row("95 % interval, documents drawn anew", _interval(p.nats_interval), _interval(p.bpb_interval))
    p_value = "needs 2 runs a side" if found.p is None else f"{found.p:.2g}"
    table.add_row("p that it is luck (Welch, one-sided)", p_value, "")
    bar = "-" if found.clears_bar is None else "yes" if found.clears_bar else "no"
    table.add_row("better by 0.005 nats at p < 0.01", bar, "")
    return table


def _label(label: str, side: Side) -> str:
    note = f", {len(side.not_clean)} not clean" if side.not_clean else ""
    return f"{label}: seeds {', '.join(map(str, side.seeds))}{note}"


def _spread(s: Spread) -> str:
    return f"{s.mean:.5f}" + (f" ± {s.std:.5f}" if s.std is not None else "")


def _interval(edges: tuple[float, float]) -> str:
    return f"{edges[0]:+.5f} to {edges[1]:+.5f}"
