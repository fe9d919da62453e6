"""Hessians are XᵀX / tokens of what each matrix really read."""

from __future__ import annotations

import torch
from torch import Tensor

from pygolf.data.loader import to_ids
from pygolf.model.gpt import GPT, parameter_role
from pygolf.progress import Reporter
from pygolf.quant.hessian import collect_hessians, hessian_name
from pygolf.runtime import Runtime


def collected(model: GPT, windows: Tensor, runtime: Runtime, size: int) -> dict[str, Tensor]:
    return collect_hessians(model, windows, runtime, microbatch_windows=size, reporter=Reporter(enabled=False))


def test_hessian_is_the_second_moment_of_the_input(small_model: GPT, windows: Tensor, cpu: Runtime) -> None:
    inputs: list[Tensor] = []
    matrix = small_model.blocks[2].mlp.down
    hook = matrix.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach().double().flatten(0, 1)))
    with torch.no_grad():
        small_model.hidden(to_ids(windows, cpu.device)[0])
    hook.remove()
    expected = inputs[0].T @ inputs[0] / len(inputs[0])
    found = collected(small_model, windows, cpu, 7)["blocks.2.mlp.down"]
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_every_block_matrix_has_one_of_its_width(small_model: GPT, windows: Tensor, cpu: Runtime) -> None:
    hessians = collected(small_model, windows, cpu, 24)
    for name, parameter in small_model.named_parameters():
        if parameter_role(name) == "matrix":
            assert hessians[hessian_name(name)].shape == (parameter.size(1), parameter.size(1))
    assert hessian_name("blocks.3.attn.v.weight") == "blocks.3.attn.q"
    assert len(hessians) == 4 * 4


def test_hooks_are_gone_afterwards(small_model: GPT, windows: Tensor, cpu: Runtime) -> None:
    collected(small_model, windows, cpu, 24)
    assert not any(module._forward_pre_hooks for module in small_model.modules())
