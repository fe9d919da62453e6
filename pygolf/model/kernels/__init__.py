"""Fused steps of the model, each written twice: `plain` in torch and `fused` in Triton, function by function the same.

The plain twins say what each step computes, run on the CPU and are what the tests hold the Triton kernels to.
"""

from __future__ import annotations

from importlib.util import find_spec
from types import ModuleType

import torch


def available(device: torch.device) -> bool:
    """Whether the Triton kernels can run on the device: CUDA from Ampere on, and a torch that came with Triton."""
    return (
        device.type == "cuda" and find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def kernels(device: torch.device) -> ModuleType:
    """The module that holds the steps for tensors of the device."""
    if available(device):
        from pygolf.model.kernels import fused

        return fused
    from pygolf.model.kernels import plain

    return plain
