"""Forward and backward of one microbatch: the fused kernels against the plain model, compiled whole by torch.compile.

    python benchmarks/step.py [--preset record] [--windows 48] [--microbatches 4] [--rounds 10] [--rest 0]
        [--json OUT.json]

Each round adds up the gradients of a few microbatches with one path and then with the next, on the same tokens and
weights; medians over the rounds are compared. `flash` is the fused path with flash-attn-4, where that is installed.
A GPU under steady load reaches its power limit and lowers its clock, as it does in training; with `--rest 2` each path
begins rested and runs at the full clock for its few microbatches.
Errors are of the losses and of the whole gradient against the plain model in fp32. On the CPU the plain model is not
compiled and both paths are the plain model: that shows that the script works, not a speed.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pygolf.config import ModelConfig, RuntimeConfig
from pygolf.errors import ConfigError
from pygolf.model.flops import peak_flops, training_flops
from pygolf.model.gpt import GPT, initialize, place
from pygolf.model.graphs import loss_function
from pygolf.presets import PRESETS
from pygolf.runtime import Runtime, launch

GOAL_MS = 60.0
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One path: medians over the rounds."""

    first_s: float
    """First round, compilation included."""
    ms: float
    peak_gb: float
    """Most memory that the first round held, weights included."""
    loss_error: float
    """|l - l_fp32| / |l_fp32| over the losses of all tokens."""
    gradient_error: float
    """|g - g_fp32| / |g_fp32| over all parameters."""


def random_model(config: ModelConfig) -> GPT:
    """Fresh weights, with the zero matrices away from zero."""
    model = GPT(config)
    initialize(model, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.02 if parameter.ndim == 2 else 0.1
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    return model


def accumulate(loss: Loss, model: GPT, ids: Tensor, targets: Tensor, microbatches: int) -> Tensor:
    """Adds up the gradient of the same microbatch some times, as a step does; returns its losses."""
    model.zero_grad(set_to_none=True)
    for _ in range(microbatches):
        nll = loss(ids, targets)
        (nll.mean() / microbatches).backward()
    return nll.detach()


def gradient(model: GPT) -> Tensor:
    return torch.cat([p.grad.flatten().float() for p in model.parameters() if p.grad is not None])


def reference(model: GPT, ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(losses, gradient) in fp32, a few windows at a time."""
    exact = copy.deepcopy(model)
    exact.compute_dtype = torch.float32
    losses = []
    for i in range(len(ids)):
        nll = exact(ids[i : i + 1], targets[i : i + 1])
        (nll.sum() / ids.numel()).backward()
        losses.append(nll.detach())
    return torch.cat(losses), gradient(exact)


class Measured:
    """A path under measurement."""

    def __init__(
        self, loss: Loss, model: GPT, batch: tuple[Tensor, Tensor], microbatches: int, runtime: Runtime
    ) -> None:
        self._loss, self._model, self._batch = loss, model, batch
        self._microbatches, self._runtime = microbatches, runtime
        self._times: list[float] = []
        self._on_cuda = runtime.device.type == "cuda"
        if self._on_cuda:
            torch.cuda.reset_peak_memory_stats()
        self._first_s = self._timed()[0]
        self._peak_gb = torch.cuda.max_memory_allocated() / 1e9 if self._on_cuda else 0.0

    def _timed(self, rest: float = 0) -> tuple[float, Tensor]:
        self._runtime.synchronize()
        time.sleep(rest)
        begin = time.perf_counter()
        nll = accumulate(self._loss, self._model, *self._batch, self._microbatches)
        self._runtime.synchronize()
        return time.perf_counter() - begin, nll

    def round(self, rest: float) -> None:
        self._times.append(self._timed(rest)[0])

    def result(self, losses: Tensor, exact: Tensor) -> Result:
        nll = self._timed()[1]
        return Result(
            first_s=self._first_s,
            ms=1e3 * statistics.median(self._times) / self._microbatches,
            peak_gb=self._peak_gb,
            loss_error=float((nll - losses).norm() / losses.norm()),
            gradient_error=float((gradient(self._model) - exact).norm() / exact.norm()),
        )


def make_paths(model: GPT, runtime: Runtime) -> dict[str, tuple[Loss, GPT]]:
    """Every path, each with a model of its own; flash only where it runs."""
    plain, fused = copy.deepcopy(model), copy.deepcopy(model)
    paths: dict[str, tuple[Loss, GPT]] = {
        "plain": (torch.compile(plain, dynamic=False) if runtime.compiled else plain, plain),
        "fused": (loss_function(fused, runtime), fused),
    }
    with suppress(ConfigError):
        flash = place(copy.deepcopy(model), replace(runtime, attention="flash"))
        paths["flash"] = loss_function(flash, runtime), flash
    return paths


def measure(
    config: ModelConfig, windows: int, microbatches: int, rounds: int, rest: float, runtime: Runtime
) -> dict[str, Result]:
    """Results by path."""
    model = place(random_model(config), replace(runtime, attention="sdpa"))
    random = torch.Generator().manual_seed(2)
    shape = (windows, config.sequence_length + 1)
    ids = torch.randint(config.vocab_size, shape, generator=random).to(runtime.device)
    tokens, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    losses, exact = reference(model, tokens, targets)
    paths = {
        name: Measured(loss, own, (tokens, targets), microbatches, runtime)
        for name, (loss, own) in make_paths(model, runtime).items()
    }
    for _ in range(rounds):
        for path in paths.values():
            path.round(rest)
    return {name: p.result(losses, exact) for name, p in paths.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="record")
    parser.add_argument("--windows", type=int, default=48, help="windows of the microbatch")
    parser.add_argument("--microbatches", type=int, default=4, help="microbatches of a round")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--rest", type=float, default=0.0, help="seconds of rest before each path's microbatches")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/step.json"))
    arguments = parser.parse_args()

    with launch(RuntimeConfig()) as runtime:
        config = PRESETS[arguments.preset]().model
        counts = arguments.windows, arguments.microbatches, arguments.rounds
        results = measure(config, *counts, arguments.rest, runtime)
        peak = peak_flops(runtime.device)
        name = torch.cuda.get_device_name() if runtime.device.type == "cuda" else platform.processor()
    flops = training_flops(config) * arguments.windows * config.sequence_length
    ratios = {path: results["plain"].ms / r.ms for path, r in results.items()}
    for path, r in results.items():
        share = flops / peak / r.ms * 1e5 if peak else 0.0
        print(
            f"{path}: {r.ms:.2f} ms (ratio {ratios[path]:.3f}), MFU {share:.1f} %, peak {r.peak_gb:.2f} GB, first "
            f"{r.first_s:.1f} s, error of the losses {r.loss_error:.1e}, of the gradient {r.gradient_error:.1e}"
        )
    print(f"goal: {GOAL_MS:g} ms for the record preset on one H200")
    machine = {"device": name, "torch": torch.__version__, "rest": arguments.rest, "flops": flops}
    record = {path: asdict(r) for path, r in results.items()} | {"ratios": ratios}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"machine": machine, "result": record}, indent=2) + "\n")


if __name__ == "__main__":
    main()
