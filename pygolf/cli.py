"""The command line: `pygolf COMMAND [options]`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape

from pygolf.commands import artifacts, datasets, reports, runs, trust
from pygolf.errors import PygolfError

COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    command.__name__: command
    for command in (
        runs.demo,
        runs.run,
        runs.train,
        runs.adapt,
        runs.quantize,
        artifacts.score,
        artifacts.inspect,
        artifacts.generate,
        trust.verify,
        trust.compare,
        reports.report,
        reports.submission,
        datasets.shard,
        datasets.download,
    )
}


def main() -> None:
    """Entry point. Errors that a user can mend are one line on stderr and exit status 2; Ctrl-C is 130."""
    arguments = sys.argv[1:]
    # Before torch is loaded: threads that spin at the end of every parallel loop make training on a busy machine
    # five times slower; waiting in the kernel costs 15 % on an idle one.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
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
