"""A trace of a few training steps, for Perfetto (ui.perfetto.dev) or chrome://tracing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, schedule

from pygolf.files import replacing
from pygolf.runtime import Runtime

SKIPPED_STEPS, WARM_STEPS, TRACED_STEPS = 5, 1, 10


@contextmanager
def traced_steps(path: Path | None, runtime: Runtime) -> Iterator[Callable[[], None]]:
    """Yields what to call after every step; writes the trace (gzipped JSON) of TRACED_STEPS of them to `path`.

    Without a path it does nothing.
    """
    if path is None:
        yield lambda: None
        return

    def write(finished: profile) -> None:
        with replacing(path) as temporary:
            finished.export_chrome_trace(str(temporary))

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (runtime.device.type == "cuda")
    plan = schedule(skip_first=SKIPPED_STEPS, wait=0, warmup=WARM_STEPS, active=TRACED_STEPS, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=write) as profiler:
        yield profiler.step
