"""Notices that another rank has died, so that nobody waits for it for ever.

A rank that is killed leaves the others inside a collective, where no exception reaches them. So every rank lets a
counter rise in the process group's key-value store, from a thread, and looks at the others' counters. A counter that
stands still, or a rank that posts why it failed, ends this process with a message that names the rank.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from typing import Any

BEAT_SECONDS = 1.0
SILENT_SECONDS = 25.0
"""A rank without a sign of life for this long is dead. Shorter than the 30 s that torchrun gives processes to end."""


class Watchdog:
    """Watches over all ranks of a torch.distributed key-value store from construction until `leave` or `fail`.

    `store` must not be used by anything else: a waiting call would block it.
    """

    def __init__(self, store: Any, rank: int, world_size: int) -> None:
        self._store, self._rank = store, rank
        self._others = [r for r in range(world_size) if r != rank]
        self._heard = {r: (-1, time.monotonic()) for r in self._others}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pygolf-watchdog", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """This rank ends in good order; the others no longer expect it."""
        self._end(f"left/{self._rank}", "")

    def fail(self, reason: str) -> None:
        """This rank ends because of an error, which the others print before they end too."""
        self._end(f"failed/{self._rank}", reason)

    def find_dead_rank(self) -> None:
        """After a failed collective: waits for as long as a death takes to show. Ends the process if one does."""
        self._thread.join(SILENT_SECONDS + 3 * BEAT_SECONDS)

    def _end(self, key: str, text: str) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(RuntimeError):  # the store's host may have ended before this rank: nobody is left to tell
            self._store.set(key, text or "-")

    def _watch(self) -> None:
        try:
            while not self._ended.wait(BEAT_SECONDS):
                self._store.add(f"alive/{self._rank}", 1)
                for rank in list(self._others):
                    self._look_at(rank)
        except RuntimeError as error:
            # The rank that holds the store may just have finished a moment before this one.
            if not self._ended.wait(SILENT_SECONDS):
                self._die(f"rank 0 or its launcher has died: the key-value store is gone ({error})")

    def _look_at(self, rank: int) -> None:
        if self._store.check([f"left/{rank}"]):
            self._others.remove(rank)
            return
        if self._store.check([f"failed/{rank}"]):
            self._die(f"rank {rank} failed: {self._store.get(f'failed/{rank}').decode()}")
        count, now = self._store.add(f"alive/{rank}", 0), time.monotonic()
        if count != self._heard[rank][0]:
            self._heard[rank] = (count, now)
        elif now - self._heard[rank][1] > SILENT_SECONDS:
            self._die(f"rank {rank} has died: no sign of life for {SILENT_SECONDS:.0f} s")

    def _die(self, reason: str) -> None:
        advice = "the last checkpoint is kept, go on with 'pygolf run --resume DIR'"
        print(f"error: rank {self._rank} ends because {reason}; {advice}", file=sys.stderr, flush=True)
        time.sleep(3 * BEAT_SECONDS)  # the store may live in this process: let the others find out too
        os._exit(3)
