"""When a rank dies, the others end soon, with an error that names it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

# The ranks meet once; then each does what its test wants of it.
PROGRAM = """
import os, sys, time
import torch.distributed as dist
from pygolf import watchdog
from pygolf.config import RuntimeConfig
from pygolf.errors import ConfigError
from pygolf.runtime import launch

watchdog.SILENT_SECONDS = 3.0
with launch(RuntimeConfig(device="cpu", threads=1)) as runtime:
    runtime.barrier()
    print("met", flush=True)
    {body}
"""


def start_ranks(count: int, body: str) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(count):
        place = {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        arguments = [sys.executable, "-c", PROGRAM.format(body=body)]
        environment = {**os.environ, **place}
        ranks.append(
            subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        )
    for process in ranks:
        assert process.stdout is not None
        assert process.stdout.readline() == "met\n", process.communicate()[1]
    return ranks


@pytest.mark.slow
@pytest.mark.parametrize("waiting", ["time.sleep(100)", "dist.barrier()"])
@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_rank_is_named_by_all_others(waiting: str, victim: int) -> None:
    ranks = start_ranks(4, f"time.sleep(100) if runtime.rank == {victim} else {waiting}")
    os.kill(ranks[victim].pid, signal.SIGKILL)
    for rank, process in enumerate(ranks):
        _, stderr = process.communicate(timeout=60)
        if rank != victim:
            assert process.returncode == 3
            assert f"rank {rank} ends because rank {victim}" in stderr
            assert "pygolf run --resume" in stderr


@pytest.mark.slow
def test_the_error_of_one_rank_ends_all_with_its_text() -> None:
    body = "if runtime.rank == 1: raise ConfigError('no space for this')\n    time.sleep(100)"
    first, second, third = start_ranks(3, body)
    for process in (first, third):
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 3
        assert "rank 1 failed: ConfigError: no space for this" in stderr
    assert "ConfigError" in second.communicate()[1]


@pytest.mark.slow
def test_ranks_that_end_at_different_times_are_not_missed() -> None:
    ranks = start_ranks(3, "time.sleep(5 * runtime.rank)")
    for process in ranks:
        _, stderr = process.communicate(timeout=60)
        assert (process.returncode, "error" in stderr) == (0, False), stderr


def test_one_process_needs_no_watchdog(tmp_path: Path) -> None:
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(body="")], capture_output=True, text=True, check=True)
    assert done.stdout == "met\n"
    assert time.monotonic() - started < 60
