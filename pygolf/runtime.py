"""Device, ranks and precision of a process; the same code runs on CPU, on one GPU and under torchrun."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from pygolf.config import RuntimeConfig
from pygolf.errors import ConfigError
from pygolf.watchdog import Watchdog

COLLECTIVE_TIMEOUT = timedelta(seconds=600)
# torch 2.13 has new names for these two and warns about the old ones.
reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


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

    def sum_all(self, tensors: list[Tensor]) -> list[Tensor]:
        """Sums of fp32 tensors over all ranks, in one collective."""
        if self.world_size == 1:
            return tensors
        flat = self.sum(torch.cat([t.flatten() for t in tensors]))
        return [part.view_as(t) for part, t in zip(flat.split([t.numel() for t in tensors]), tensors, strict=True)]


@contextmanager
def launch(config: RuntimeConfig) -> Iterator[Runtime]:
    """The runtime of this process. Joins torchrun's process group if there is one and leaves it at the end."""
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = _device(config)
    if config.threads > 0:
        torch.set_num_threads(config.threads)
    compiled = config.compile == "on" or (config.compile == "auto" and device.type == "cuda")
    with _process_group(device) if world_size > 1 else nullcontext():
        yield Runtime(device, rank, world_size, compiled, config.attention)


@contextmanager
def _process_group(device: torch.device) -> Iterator[None]:
    """Joins torchrun's process group for as long as the block runs, and ends with an error if a rank of it dies."""
    store, rank, world_size = next(rendezvous("env://", timeout=COLLECTIVE_TIMEOUT))
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=PrefixStore("group", store),
        rank=rank,
        world_size=world_size,
        timeout=COLLECTIVE_TIMEOUT,
    )
    watchdog = Watchdog(PrefixStore("watchdog", store.clone()), rank, world_size)
    try:
        yield
    except KeyboardInterrupt:
        watchdog.leave()
        raise
    except BaseException as error:
        if isinstance(error, RuntimeError):
            # What a collective raises when its partner is gone does not say who that was.
            watchdog.find_dead_rank()
        watchdog.fail(f"{type(error).__name__}: {error}")
        raise
    dist.barrier()  # rank 0 may hold the store, so it is not the first to leave
    watchdog.leave()
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
