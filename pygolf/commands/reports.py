"""Commands that make something of finished runs: report, submission."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import tyro
from tyro.conf import Positional


def report(arguments: Sequence[str]) -> None:
    """Makes report.html of a finished run again, from the files of its folder: `report RUN`."""

    def command(run: Positional[Path]) -> None:
        """Makes report.html.

        Args:
            run: folder of a run that was scored.
        """
        from pygolf.report.page import write_page

        print(write_page(run))

    tyro.cli(command, prog="pygolf report", args=list(arguments))


def submission(arguments: Sequence[str]) -> None:
    """Makes a record folder of verified runs that differ in their seeds: `submission RUN... --out DIR`."""

    def command(runs: Positional[tuple[Path, ...]], out: Path, author: str, github_id: str, name: str) -> None:
        """Makes a record folder, if every run keeps the rules and its score is clean.

        Args:
            runs: folders of finished runs: one recipe, a seed each.
            out: the folder to make.
            author: who claims the score.
            github_id: the author's name on GitHub.
            name: title of the record.
        """
        from pygolf.report.submission import Author, read_checked, write_submission

        checked = [read_checked(run, _verified(run)) for run in runs]
        today = datetime.now(UTC).date().isoformat()
        figures = write_submission(checked, out, Author(author, github_id, name, today))
        print(f"{out}: val_bpb {figures['val_bpb']:.4f}, seeds {figures['seeds']}, {figures['bytes_total']:,} bytes")

    tyro.cli(command, prog="pygolf submission", args=list(arguments))


def _verified(folder: Path) -> list[dict[str, str]]:
    """Rule, status and figure of each rule that `pygolf verify` checks."""
    from pygolf.pipeline import launched, open_run
    from pygolf.score.rules import verify_run

    with launched(replace(open_run(folder).runtime, compile="off")) as (runtime, _):
        results = verify_run(folder, runtime).results
    for r in results:
        print(f"{folder.name}: {r.rule}: {r.status} ({r.figure})")
    return [{"rule": r.rule, "status": r.status, "figure": r.figure} for r in results]
