"""Device, ranks and precision of a process; the same code runs on CPU, on one GPU and under torchrun."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec

import torch
import torch.distributed as dist
from torch import Tensor

from pygolf.config import RuntimeConfig
from pygolf.errors import ConfigError

COLLECTIVE_TIMEOUT = timedelta(seconds=600)


@dataclass(frozen=True)
class Runtime:
    """Where this process runs. Build it with `launch`."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    compiled: bool = False
    attention: str = "sdpa"

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def compute_dtype(self) -> torch.dtype:
        """bf16 activations on CUDA, fp32 on CPU; weights are fp32 on both."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    def synchronize(self) -> None:
        """Waits until the device has finished what was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def sum(self, tensor: Tensor) -> Tensor:
        """Adds `tensor` over all ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor


@contextmanager
def launch(config: RuntimeConfig) -> Iterator[Runtime]:
    """The runtime of this process. Joins torchrun's process group if there is one and leaves it at the end."""
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = _device(config)
    if config.attention == "flash" and (device.type != "cuda" or find_spec("flash_attn") is None):
        raise ConfigError("runtime.attention is flash, which needs CUDA and 'pip install pygolf[flash]'; use sdpa")
    if config.threads > 0:
        torch.set_num_threads(config.threads)
    if world_size > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
    compiled = config.compile == "on" or (config.compile == "auto" and device.type == "cuda")
    try:
        yield Runtime(device, rank, world_size, compiled, config.attention)
    finally:
        if world_size > 1:
            dist.destroy_process_group()


def _device(config: RuntimeConfig) -> torch.device:
    has_cuda = torch.cuda.is_available()
    if config.device == "cuda" and not has_cuda:
        raise ConfigError("runtime.device is cuda but torch sees no CUDA device; use cpu, or check nvidia-smi")
    if config.device == "cpu" or not has_cuda:
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device
