"""The stages around training, each against its slow and obvious twin, interleaved in one process.

    python benchmarks/stages.py optimizer adapt score generate start [--preset record] [--rounds 5]
        [--weights DIR/trained.safetensors] [--json runs/benchmarks/stages.json]

optimizer  Muon, AdamW, clipping and the weight average of one step, gradients given; twin: parameter by parameter
adapt      steps of an adaptation epoch; twin: the plain model, clip_grad_norm_ and AdamW parameter by parameter
score      sliding windows; twin: every position of every window through the whole plain model
generate   windows sampled from the model; twin: the plain model with a cache
start      seconds from process start to the end of the first training step, in a process of its own; no twin

Without CUDA use `--preset tiny`. Medians over the rounds; the first round of each is not counted.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from pygolf.config import RunConfig, RuntimeConfig
from pygolf.data.bundled import BUNDLED
from pygolf.data.dataset import TOKENIZER_NAME
from pygolf.data.shards import write_shard
from pygolf.model.generate import sample_windows
from pygolf.model.gpt import GPT, initialize, parameter_role, place
from pygolf.presets import PRESETS
from pygolf.report.report import versions
from pygolf.runtime import Runtime, launch
from pygolf.score.sliding import plan_windows, window_nll
from pygolf.train.adapt import Session
from pygolf.train.averaging import WeightAverage
from pygolf.train.muon import COEFFICIENTS, STEPS
from pygolf.train.optimizer import Optimizer

Action = Callable[[], object]


def compare(runtime: Runtime, rounds: int, twin: Action, fast: Action) -> tuple[float, float]:
    """Median seconds of both, turn by turn."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(1 + rounds):
        for action, times in zip((twin, fast), seconds, strict=True):
            runtime.synchronize()
            begin = time.perf_counter()
            action()
            runtime.synchronize()
            times.append(time.perf_counter() - begin)
    return statistics.median(seconds[0][1:]), statistics.median(seconds[1][1:])


def random_ids(config: RunConfig, windows: int) -> Tensor:
    """uint16 [windows, T + 1]"""
    shape = (windows, config.model.sequence_length + 1)
    return torch.randint(config.model.vocab_size, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint16)


# --- optimizer -----------------------------------------------------------------------------------------------------


class PlainStep:
    """The optimizer's rule parameter by parameter; see pygolf.train.{optimizer,muon,averaging}."""

    def __init__(self, model: GPT, config: RunConfig, runtime: Runtime) -> None:
        self.model, self.config, self.dtype = model, config.train, runtime.compute_dtype
        named = dict(model.named_parameters())
        self.matrices = [p for n, p in named.items() if parameter_role(n) == "matrix"]
        small = [p for n, p in named.items() if parameter_role(n) != "matrix"]
        self.velocity = [torch.zeros_like(p) for p in self.matrices]
        self.adam = torch.optim.AdamW(small, lr=self.config.scalar_lr, foreach=False)
        self.average = [p.detach().clone() for p in model.parameters()]

    @torch.no_grad()
    def __call__(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm, foreach=False)
        for p, v in zip(self.matrices, self.velocity, strict=True):
            v.mul_(0.95).add_(p.grad)
            update = self.orthogonal((p.grad + 0.95 * v).to(self.dtype)).float()
            p.mul_(1 - self.config.matrix_lr * self.config.weight_decay)
            p.sub_(self.config.matrix_lr * max(1.0, p.size(0) / p.size(1)) ** 0.5 * update)
        self.adam.step()
        for mean, p in zip(self.average, self.model.parameters(), strict=True):
            mean.lerp_(p, 0.003)

    def orthogonal(self, x: Tensor) -> Tensor:
        a, b, c = COEFFICIENTS
        tall = x.size(0) > x.size(1)
        x = (x.mT if tall else x) / (x.float().norm() + 1e-7).to(x.dtype)
        for _ in range(STEPS):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
        return x.mT if tall else x


def optimizer(config: RunConfig, model: GPT, runtime: Runtime, rounds: int) -> dict[str, Any]:
    model = copy.deepcopy(model)
    for p in model.parameters():
        p.grad = 1e-3 * torch.randn_like(p)
    fast, average = Optimizer(model, config.train, runtime), WeightAverage(model, config.train.ema_decay)
    passengers = torch.zeros(3, device=runtime.device)

    def step() -> None:
        norm, _ = fast.reduce(passengers)
        fast.step(norm, fast.rates(1000, 1.0))
        average.update(1000)

    twin, quick = compare(runtime, rounds, PlainStep(model, config, runtime), step)
    result = {"unit": "s a step", "twin": twin, "fast": quick}
    if runtime.device.type == "cuda":
        result["device"] = device_seconds(step, rounds)
    return result


def device_seconds(step: Action, rounds: int) -> float:
    """Seconds on the device alone: the host has sent everything before the device begins, as it is in training."""
    times = []
    for _ in range(1 + rounds):
        torch.cuda.synchronize()
        torch.cuda._sleep(20_000_000)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        step()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times[1:])


# --- adapt ---------------------------------------------------------------------------------------------------------


def adaptation(config: RunConfig, model: GPT, runtime: Runtime, rounds: int) -> dict[str, Any]:
    settings = config.adapt
    windows = random_ids(config, 8 * settings.windows_per_step)
    plain = copy.deepcopy(model)
    adam = torch.optim.AdamW(plain.parameters(), lr=settings.lr, betas=(0.9, 0.999), weight_decay=0, foreach=False)

    def twin() -> None:
        for batch in windows.long().to(runtime.device).split(settings.windows_per_step):
            adam.zero_grad()
            plain(batch[:, :-1], batch[:, 1:]).mean().backward()
            torch.nn.utils.clip_grad_norm_(plain.parameters(), settings.clip_norm, foreach=False)
            adam.step()

    microbatch = config.train.microbatch_tokens // config.model.sequence_length
    session = Session(copy.deepcopy(model), settings, runtime, microbatch)

    def fast() -> None:
        for batch in windows.to(runtime.device).split(settings.windows_per_step):
            session.step(batch, 1.0)

    tokens = windows.size(0) * config.model.sequence_length
    return {"unit": "tokens/s", **rates(tokens, compare(runtime, rounds, twin, fast))}


def rates(amount: int, seconds: tuple[float, float]) -> dict[str, float]:
    return {"twin": amount / seconds[0], "fast": amount / seconds[1]}


# --- score ---------------------------------------------------------------------------------------------------------


def score(config: RunConfig, model: GPT, runtime: Runtime, rounds: int) -> dict[str, Any]:
    length, stride, batch = config.model.sequence_length, config.score.stride, config.score.batch_tokens
    size = max(1, batch // length)
    tokens = random_ids(config, 1 + 8 * size * stride // length).flatten().numpy()[: length + 8 * size * stride + 1]
    plan = plan_windows(len(tokens), length, stride)
    losses: dict[str, Tensor] = {}

    @torch.no_grad()
    def twin() -> None:
        text = torch.from_numpy(tokens.astype(np.int64)).to(runtime.device)
        parts = []
        for starts in torch.from_numpy(plan.starts).split(size):
            windows = torch.stack([text[s : s + length + 1] for s in starts.tolist()])
            nll = model.nll(model.hidden(windows[:, :-1])[:, -stride:], windows[:, -stride:])
            parts.append(nll.flatten())
        losses["twin"] = torch.cat(parts)

    def fast() -> None:
        losses["fast"] = window_nll(model, tokens, plan, (0, len(plan)), batch_tokens=batch)

    seconds = compare(runtime, rounds, twin, fast)
    means = {name: float(nll[-8 * size * stride :].double().mean()) for name, nll in losses.items()}
    return {"unit": "tokens scored/s", **rates(len(plan) * stride, seconds), "losses": means}


# --- generate ------------------------------------------------------------------------------------------------------


def generate(config: RunConfig, model: GPT, runtime: Runtime, rounds: int) -> dict[str, Any]:
    count, length = config.quant.calibration_windows, config.model.sequence_length
    short = length // 8  # the twin takes its time

    @torch.no_grad()
    def twin() -> None:
        ids = torch.ones(count, 1, dtype=torch.int64, device=runtime.device)
        cache = model.new_cache(count, short)
        for _ in range(short):
            logits = model.logits(model.hidden(ids, cache))[:, 0]
            ids = torch.multinomial(torch.softmax(logits / 0.8, dim=1), 1)

    def fast(tokens: int) -> None:
        sample_windows(model, count, tokens, temperature=0.8, seed=0, bos_id=1, batch=count)

    seconds = compare(runtime, rounds, twin, lambda: fast(short))
    whole = compare(runtime, 1, lambda: fast(length), lambda: fast(length))
    return {"unit": "tokens/s", **rates(count * short, seconds), "windows": [count, length], "seconds": min(whole)}


# --- start ---------------------------------------------------------------------------------------------------------


def write_data(folder: Path, config: RunConfig) -> None:
    """Shards of random tokens."""
    (folder / TOKENIZER_NAME).write_bytes((BUNDLED / TOKENIZER_NAME).read_bytes())
    for split, windows in (("train", 600), ("val", 40)):
        write_shard(folder / f"{split}_000000.bin", random_ids(config, windows).flatten().numpy())


def start(config: RunConfig, runtime: Runtime) -> dict[str, Any]:
    """Twice, the first time with an empty cache of compiled kernels."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), config)
        for i in range(2):
            command = [
                *(sys.executable, "-m", "pygolf", "train", config.name, "--runs", folder, "--name", f"run{i}"),
                *("--data.path", folder, "--data.holdout-windows", "80", "--train.max-seconds", "0"),
                *("--train.max-steps", "1", "--runtime.device", runtime.device.type),
            ]
            caches = {name: f"{folder}/{name}" for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")}
            begin = time.perf_counter()
            subprocess.run(command, check=True, env={**os.environ, **caches}, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - begin)
    return {"unit": "s to one step and its files", "cold": seconds[0], "warm": seconds[1]}


STAGES = {"optimizer": optimizer, "adapt": adaptation, "score": score, "generate": generate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=[*STAGES, "start"])
    parser.add_argument("--preset", choices=list(PRESETS), default="record")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/stages.json"))
    arguments = parser.parse_args()
    config = PRESETS[arguments.preset]()
    results: dict[str, Any] = {"preset": arguments.preset, "versions": versions()}
    with launch(RuntimeConfig()) as runtime:
        model = GPT(config.model)
        initialize(model, 0)
        if arguments.weights:
            model.load_state_dict(load_file(arguments.weights))
        place(model, runtime)
        for name in arguments.stages:
            if name == "start":
                results[name] = start(config, runtime)
            else:
                results[name] = STAGES[name](config, model, runtime, arguments.rounds)
                results[name]["ratio"] = ratio(results[name])
            print(name, json.dumps(results[name]), flush=True)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(results, indent=2) + "\n")


def ratio(result: dict[str, Any]) -> float:
    """How many times faster than the twin."""
    faster = result["fast"] / result["twin"]
    return faster if result["unit"].endswith("/s") else 1 / faster


if __name__ == "__main__":
    main()
