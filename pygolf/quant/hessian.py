"""Input second moments of the block matrices: H = XᵀX / tokens, fp32, on the device, summed over ranks.

Shapes: N windows, T positions, C inputs of a matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pygolf.data.loader import to_ids
from pygolf.model.gpt import GPT
from pygolf.progress import Reporter
from pygolf.runtime import Runtime

# One Hessian serves all matrices that read the same input.
SHARED_INPUT = {"attn.k": "attn.q", "attn.v": "attn.q"}
INPUTS = ("attn.q", "attn.out", "mlp.up", "mlp.down")


def hessian_name(weight_name: str) -> str:
    """Key of the Hessian of a block matrix: `blocks.3.attn.v.weight` -> `blocks.3.attn.q`."""
    blocks, index, module = weight_name.removesuffix(".weight").split(".", 2)
    return f"{blocks}.{index}.{SHARED_INPUT.get(module, module)}"


@torch.no_grad()
def collect_hessians(
    model: GPT, windows_u16: Tensor, runtime: Runtime, *, microbatch_windows: int, reporter: Reporter
) -> dict[str, Tensor]:
    """H [C, C] of every distinct input of a block matrix, over windows [N, T + 1] shared by all ranks."""
    hessians: dict[str, Tensor] = {}
    reporter.stage("calibrate", len(windows_u16))
    mine = windows_u16[runtime.rank :: runtime.world_size]
    with _listening(model, hessians):
        done = 0
        for batch in mine.split(microbatch_windows):
            model.hidden(to_ids(batch, runtime.device)[0])
            done += len(batch) * runtime.world_size
            reporter.advance(min(done, len(windows_u16)), len(windows_u16))
    tokens = len(windows_u16) * (windows_u16.size(1) - 1)
    return {name: runtime.sum(h).div_(tokens) for name, h in sorted(hessians.items())}


@contextmanager
def _listening(model: GPT, hessians: dict[str, Tensor]) -> Iterator[None]:
    """Adds XᵀX of every block matrix's input to `hessians` while the block runs."""
    handles: list[RemovableHandle] = []
    for i, block in enumerate(model.blocks):
        for name in INPUTS:
            module = block.get_submodule(name)
            size = module.get_parameter("weight").size(1)
            total = torch.zeros(size, size, device=model.cos.device)
            hessians[f"blocks.{i}.{name}"] = total
            handles.append(module.register_forward_pre_hook(_adder(total)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adder(total: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].flatten(0, -2).float()
        total.addmm_(x.mT, x)

    return add
