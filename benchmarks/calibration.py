"""Hessians of the record model: pygolf's fused forward against plain fp32 hooks, interleaved, in tokens a second.

usage: python benchmarks/calibration.py [--weights W.safetensors] [--windows 192] [--rounds 5] [--json FILE]

Plain: forward hooks on every matrix that add x^T x in fp32, as the record's script does it, but on the device.
Also the time of both moments, forward and backward. Without weights the model is a fresh one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pygolf.config import ModelConfig, RuntimeConfig
from pygolf.data.loader import to_ids
from pygolf.model.gpt import GPT, initialize, place
from pygolf.progress import Reporter
from pygolf.quant.calibrate import collect_hessians, collect_moments
from pygolf.runtime import Runtime, launch

QUIET = Reporter(enabled=False)


@torch.no_grad()
def plain_hessians(model: GPT, windows_u16: Tensor, runtime: Runtime, size: int) -> dict[str, Tensor]:
    totals: dict[str, Tensor] = {}

    def adder(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].flatten(0, -2).float()
            totals[name] = totals[name].addmm_(x.mT, x) if name in totals else x.mT @ x

        return add

    linear = {f"{n}.weight": m for n, m in model.blocks.named_modules(prefix="blocks") if isinstance(m, nn.Linear)}
    handles = [module.register_forward_pre_hook(adder(name)) for name, module in linear.items()]
    for batch in windows_u16.split(size):
        model.hidden(to_ids(batch, runtime.device)[0])
    for handle in handles:
        handle.remove()
    tokens = len(windows_u16) * (windows_u16.size(1) - 1)
    return {name: total / tokens for name, total in totals.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--windows", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--microbatch-windows", type=int, default=48)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    config, size = ModelConfig(), options.microbatch_windows
    model = GPT(config)
    initialize(model, 0)
    if options.weights:
        model.load_state_dict({name: w.float() for name, w in load_file(options.weights).items()})
    shape = (options.windows, config.sequence_length + 1)
    windows = torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint16)
    with launch(RuntimeConfig()) as runtime:
        place(model, runtime)
        ways: dict[str, Callable[[], object]] = {
            "plain hooks": lambda: plain_hessians(model, windows, runtime, size),
            "hessians": lambda: collect_hessians(model, windows, runtime, microbatch_windows=size, reporter=QUIET),
            "both moments": lambda: collect_moments(
                model, windows, runtime, microbatch_windows=size // 3, whole_rows=True, seed=0, reporter=QUIET
            ),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds + 1):
            for name, run in ways.items():
                runtime.synchronize()
                started = time.perf_counter()
                run()
                runtime.synchronize()
                seconds[name].append(time.perf_counter() - started)
    tokens = options.windows * config.sequence_length
    speeds = {name: tokens / statistics.median(times[1:]) for name, times in seconds.items()}  # the first warms up
    for name, speed in speeds.items():
        print(f"{name:<14} {speed / 1e6:6.2f} M tokens/s  {speed / speeds['plain hooks']:5.2f} x plain")
    if options.json:
        options.json.write_text(json.dumps({"tokens_per_second": speeds}, indent=2) + "\n")


if __name__ == "__main__":
    main()
