"""The training loop: accumulate, reduce, clip, step, average, against a clock, with no device sync in a step.

What the host must know of a step (loss, clock, a wish to stop) travels with the gradients, so that every rank reads
the same numbers, and is read one step late on CUDA, so that the device never waits for the host.
"""

from __future__ import annotations

import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from pygolf.config import RunConfig
from pygolf.data.loader import BatchLoader
from pygolf.errors import ConfigError, NonFiniteLossError
from pygolf.model.flops import peak_flops, training_flops
from pygolf.model.gpt import GPT
from pygolf.model.graphs import loss_function
from pygolf.progress import Reporter
from pygolf.runtime import Runtime
from pygolf.train.averaging import WeightAverage
from pygolf.train.checkpoint import Checkpoint, save_checkpoint
from pygolf.train.optimizer import Optimizer, accumulate_gradients
from pygolf.train.schedule import Clock
from pygolf.train.trace import traced_steps


@dataclass(frozen=True)
class TrainResult:
    """What training leaves: averaged weights, and how it went."""

    weights: dict[str, Tensor]
    steps: int
    tokens: int
    seconds: float
    interrupted: bool


@dataclass(frozen=True)
class _Reading:
    """The numbers of one step on their way to the host: mean loss, clock, stop wish, gradient norm."""

    step: int
    lr_scale: float
    numbers: Tensor
    copied: torch.cuda.Event | None

    def wait(self) -> list[float]:
        if self.copied is not None:
            self.copied.synchronize()
        return [float(v) for v in self.numbers]


class StopFlag:
    """True once Ctrl-C or SIGTERM asked for an orderly stop; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.raised = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.raised and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.raised = True


@contextmanager
def orderly_stop() -> Iterator[StopFlag]:
    """Turns SIGINT and SIGTERM into a flag while the block runs (main thread only; elsewhere they stay as they are)."""
    flag = StopFlag()
    try:
        old = {number: signal.signal(number, flag) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        old = {}
    try:
        yield flag
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def check_split(config: RunConfig, runtime: Runtime) -> None:
    """Raises ConfigError unless the ranks divide the windows of a step."""
    windows = config.train.batch_tokens // config.model.sequence_length
    if windows % runtime.world_size:
        raise ConfigError(
            f"train.batch_tokens {config.train.batch_tokens} is {windows} windows of {config.model.sequence_length} "
            f"tokens, which {runtime.world_size} ranks cannot share evenly; change batch_tokens or the number of ranks"
        )


class Trainer:
    """One training run. `model` is on the device; `make_loader` opens the batches at a plan state (None: start)."""

    def __init__(
        self,
        config: RunConfig,
        runtime: Runtime,
        model: GPT,
        make_loader: Callable[[list[int] | None], BatchLoader],
        folder: Path,
        reporter: Reporter,
    ) -> None:
        check_split(config, runtime)
        self._config, self._runtime, self._model = config, runtime, model
        self._make_loader, self._folder, self._reporter = make_loader, folder, reporter
        length = config.model.sequence_length
        self._local_windows = config.train.batch_tokens // length // runtime.world_size
        self._micro_windows = min(self._local_windows, config.train.microbatch_tokens // length)
        self._loss = loss_function(model, runtime)
        self._clock = Clock(config.train, queued=1 if runtime.device.type == "cuda" else 0)
        self._peak = peak_flops(runtime.device) * runtime.world_size
        self._pending: deque[_Reading] = deque()
        self._stop_wish = False
        self._step, self._seconds_before, self._started = 0, 0.0, 0.0
        self._checkpoint_at = 0.0
        self._fresh_optimizer()

    def _fresh_optimizer(self) -> None:
        self._optimizer = Optimizer(self._model, self._config.train, self._runtime)
        self._average = WeightAverage(self._model, self._config.train.ema_decay)

    def train(self, checkpoint: Checkpoint | None = None) -> TrainResult:
        """Trains until clock, step limit or interrupt. Raises NonFiniteLossError, keeping the last checkpoint."""
        self._warm_up()
        if checkpoint is not None:
            self._restore(checkpoint)
        self._loader = self._make_loader(checkpoint.loader if checkpoint else None)
        self._reporter.stage("train", self._total())
        self._started = time.perf_counter()
        self._clock.report(self._step, self._elapsed())
        try:
            with orderly_stop() as stop, traced_steps(self._trace_path(), self._runtime) as traced:
                while not self._finished():
                    self._train_step(stop)
                    self._digest(keep=self._clock.queued)
                    self._checkpoint_if_due()
                    traced()
                self._digest(keep=0)
            return self._result()
        finally:
            self._loader.close()

    def _elapsed(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started

    def _trace_path(self) -> Path | None:
        wanted = self._config.runtime.profile and self._runtime.is_main
        return self._folder / "trace.json" if wanted else None

    def _total(self) -> float:
        return self._config.train.max_seconds or float(self._config.train.max_steps)

    def _finished(self) -> bool:
        return self._stop_wish or self._clock.steps_left(self._step) < 1

    def _gradients(self, ids: Tensor, targets: Tensor) -> Tensor:
        self._model.zero_grad(set_to_none=True)
        return accumulate_gradients(self._loss, ids, targets, self._micro_windows, self._local_windows)

    def _train_step(self, stop: StopFlag) -> None:
        elapsed = self._elapsed()
        lr_scale = self._clock.lr_scale(self._step)
        loss = self._gradients(*self._loader.next())
        host = torch.tensor([elapsed, float(stop.raised)]).to(loss.device, non_blocking=True)
        norm, carried = self._optimizer.reduce(torch.cat([loss[None], host]))
        self._optimizer.step(norm, self._optimizer.rates(self._step, lr_scale))
        self._average.update(self._step)
        self._pending.append(_send(self._step, lr_scale, torch.cat([carried, norm[None]])))
        self._step += 1

    def _digest(self, keep: int) -> None:
        """Reads the numbers of all but the newest `keep` steps."""
        while len(self._pending) > keep:
            reading = self._pending.popleft()
            loss, seconds, wish, norm = reading.wait()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise NonFiniteLossError(
                    f"loss {loss}, gradient norm {norm} at step {reading.step}; the last checkpoint in {self._folder} "
                    f"is kept. Lower train.matrix_lr, train.embedding_lr and train.scalar_lr, or look at the data"
                )
            self._clock.report(reading.step, seconds)
            self._stop_wish = self._stop_wish or wish > 0
            self._show(reading, loss, seconds, norm)

    def _show(self, reading: _Reading, loss: float, seconds: float, norm: float) -> None:
        done = seconds if self._config.train.max_seconds else float(reading.step + 1)
        speed = self._speed()
        share = f"  MFU {speed['mfu']:.0%}" if "mfu" in speed else ""
        rate = f"{speed['tokens_per_second'] / 1e3:,.1f} k tokens/s  {1e3 * self._clock.step_seconds:,.0f} ms"
        self._reporter.advance(
            done,
            self._total(),
            f"step {reading.step + 1}  loss {loss:.4f}  {rate}{share}",
            step=reading.step,
            loss=loss,
            norm=norm,
            lr_scale=reading.lr_scale,
            seconds=seconds,
            wait_seconds=self._loader.wait_seconds,
            **speed,
        )

    def _speed(self) -> dict[str, float]:
        """Tokens a second over all ranks and, where the device's peak is known, the share of the peak (MFU)."""
        step_seconds = self._clock.step_seconds
        rate = self._config.train.batch_tokens / step_seconds if step_seconds else 0.0
        speed = {"tokens_per_second": rate}
        if self._peak:
            speed["mfu"] = rate * training_flops(self._config.model) / self._peak
        return speed

    def _warm_up(self) -> None:
        """Compiles on random tokens, then puts everything back: no trace in weights, optimizer or loader."""
        if not self._runtime.compiled:
            return
        steps = self._config.train.compile_warmup_steps
        before = {name: p.detach().clone() for name, p in self._model.named_parameters()}
        shape = (self._local_windows, self._config.model.sequence_length)
        ids = torch.zeros(shape, dtype=torch.int64, device=self._runtime.device)
        self._reporter.stage("compile", steps)
        for step in range(steps):
            ids.random_(self._config.model.vocab_size, generator=_generator(ids.device, step))
            norm, _ = self._optimizer.reduce(self._gradients(ids, ids)[None])
            self._optimizer.step(norm, self._optimizer.rates(step, 1.0))
            self._average.update(step)
            self._reporter.advance(step + 1, steps)
        with torch.no_grad():
            for name, p in self._model.named_parameters():
                p.copy_(before[name])
        self._model.zero_grad(set_to_none=True)
        self._fresh_optimizer()
        self._runtime.synchronize()

    def _restore(self, checkpoint: Checkpoint) -> None:
        with torch.no_grad():
            for name, p in self._model.named_parameters():
                p.copy_(checkpoint.weights[name])
        self._average.load(checkpoint.average)
        self._optimizer.load(checkpoint.optimizer)
        self._step, self._seconds_before = checkpoint.step, checkpoint.seconds
        self._checkpoint_at = checkpoint.seconds

    def _checkpoint_if_due(self) -> None:
        # The shared clock decides, so that all ranks agree.
        if self._clock.readings[-1][1] - self._checkpoint_at >= self._config.train.checkpoint_seconds:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Writes a checkpoint of finite weights only. A collective: all ranks call it at the same step."""
        self._digest(keep=0)
        optimizer = self._optimizer.state()
        self._checkpoint_at = self._clock.readings[-1][1]
        if self._runtime.is_main:
            weights = {name: p.detach() for name, p in self._model.named_parameters()}
            state = Checkpoint(
                self._step, self._elapsed(), self._loader.state(), weights, self._average.tensors, optimizer
            )
            save_checkpoint(self._folder, state)
        self._runtime.barrier()

    def _result(self) -> TrainResult:
        self._runtime.synchronize()
        seconds = self._elapsed()
        if self._stop_wish:
            self.checkpoint()
        return TrainResult(
            weights=self._average.tensors,
            steps=self._step,
            tokens=self._step * self._config.train.batch_tokens,
            seconds=seconds,
            interrupted=self._stop_wish,
        )


def _generator(device: torch.device, seed: int) -> torch.Generator:
    return torch.Generator(device=device).manual_seed(seed)


def _send(step: int, lr_scale: float, numbers: Tensor) -> _Reading:
    """Starts the copy of a step's numbers to the host."""
    if numbers.device.type != "cuda":
        return _Reading(step, lr_scale, numbers, None)
    host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
    host.copy_(numbers, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return _Reading(step, lr_scale, host, event)
