"""Training on 1, 2 and 4 GPUs of one host: tokens/s, ms a step, time in collectives, efficiency against one rank.

    python benchmarks/scaling.py [--ranks 1 2 4] [--rounds 3] [--steps 40] [--json runs/benchmarks/scaling.json]

Every rank trains the record model on 98,304 random tokens a step, the smallest share of work against communication
that the record has. Each number of ranks is measured `rounds` times, in turn, and the medians are compared. Collectives
are timed twice: alone (the bytes of a step, nothing beside them), and as what is not hidden, the step's time less that
of one rank with the same tokens, whose optimizer does the work of all ranks. Without CUDA it runs a tiny model on gloo.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from pygolf.config import RuntimeConfig, TrainConfig
from pygolf.model.gpt import GPT, initialize, place
from pygolf.model.graphs import loss_function
from pygolf.presets import PRESETS
from pygolf.runtime import Runtime, all_gather, launch, reduce_scatter
from pygolf.train.averaging import WeightAverage
from pygolf.train.optimizer import Optimizer, accumulate_gradients

WARM_STEPS = 10


class Step:
    """One training step of a rank on the same random tokens."""

    def __init__(self, runtime: Runtime) -> None:
        config = PRESETS["record" if runtime.device.type == "cuda" else "tiny"]()
        windows = 48 if runtime.device.type == "cuda" else 2
        model = place(GPT(config.model), runtime)
        initialize(model, 0)
        generator = torch.Generator(device=runtime.device).manual_seed(runtime.rank)
        shape = (windows, config.model.sequence_length)
        self._ids = torch.randint(config.model.vocab_size, shape, generator=generator, device=runtime.device)
        self._model, self._loss = model, loss_function(model, runtime)
        self._optimizer = Optimizer(model, TrainConfig(), runtime)
        self._average = WeightAverage(model, 0.997)
        self.tokens = self._ids.numel() * runtime.world_size

    def __call__(self, number: int) -> None:
        self._model.zero_grad(set_to_none=True)
        loss = accumulate_gradients(self._loss, self._ids, self._ids, len(self._ids), len(self._ids))
        norm, _ = self._optimizer.reduce(loss[None])
        self._optimizer.step(norm, self._optimizer.rates(number, 1.0))
        self._average.update(number)


def seconds_of(action: Any, count: int, runtime: Runtime) -> float:
    """Seconds of one call, of `count` in a row."""
    runtime.barrier()
    runtime.synchronize()
    begin = time.perf_counter()
    for number in range(count):
        action(number)
    runtime.synchronize()
    return (time.perf_counter() - begin) / count


def collectives_alone(runtime: Runtime) -> Any:
    """The bytes that a step moves: reduce-scatter and all-gather of the block matrices, in one piece each."""
    elements = 26 * 2**20 // runtime.world_size * runtime.world_size if runtime.device.type == "cuda" else 2**16
    whole = torch.zeros(elements, device=runtime.device)
    share = torch.empty(elements // runtime.world_size, device=runtime.device)

    def exchange(_: int) -> None:
        reduce_scatter(share, whole)
        all_gather(whole, share)

    return exchange


def measure_rank(steps: int) -> None:
    """What one rank does under torchrun; rank 0 prints a line of JSON."""
    with launch(RuntimeConfig()) as runtime:
        step = Step(runtime)
        seconds_of(step, WARM_STEPS, runtime)
        result = {"step": seconds_of(step, steps, runtime), "tokens": step.tokens, "collectives": 0.0}
        if runtime.world_size > 1:
            exchange = collectives_alone(runtime)
            seconds_of(exchange, WARM_STEPS, runtime)
            result["collectives"] = seconds_of(exchange, steps, runtime)
        if runtime.is_main:
            print(json.dumps(result), flush=True)


def measure(ranks: int, steps: int) -> dict[str, float]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    arguments = [*launcher, __file__, "--rank-steps", str(steps)]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True, env=dict(os.environ))
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def summary(ranks: int, rounds: list[dict[str, float]], alone: float | None) -> dict[str, float]:
    """Medians over the rounds; `alone` is the seconds of a step of one rank."""
    step = statistics.median(r["step"] for r in rounds)
    return {
        "ranks": ranks,
        "tokens_per_second": rounds[0]["tokens"] / step,
        "step_ms": 1e3 * step,
        "collectives_alone_ms": 1e3 * statistics.median(r["collectives"] for r in rounds),
        "not_hidden_ms": 1e3 * max(0.0, step - (alone or step)),
        "efficiency": (alone or step) / step,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rank-steps", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/scaling.json"))
    arguments = parser.parse_args()
    if arguments.rank_steps:
        measure_rank(arguments.rank_steps)
        return
    rounds: dict[int, list[dict[str, float]]] = {ranks: [] for ranks in arguments.ranks}
    for _ in range(arguments.rounds):
        for ranks, found in rounds.items():
            found.append(measure(ranks, arguments.steps))
    alone = statistics.median(r["step"] for r in rounds[1]) if 1 in rounds else None
    results = [summary(ranks, found, alone) for ranks, found in rounds.items()]
    for r in results:
        print(
            f"{r['ranks']} ranks: {r['tokens_per_second'] / 1e6:.3f} M tokens/s, {r['step_ms']:.1f} ms a step, "
            f"collectives {r['collectives_alone_ms']:.2f} ms alone, efficiency {r['efficiency']:.1%}"
        )
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"rounds": rounds, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
