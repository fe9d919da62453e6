"""The fused path against the plain model and its autograd, and every Triton kernel against its plain twin."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from random_models import random_model
from torch import Tensor

from pygolf.config import ModelConfig
from pygolf.model.attention import rotary_tables
from pygolf.model.fused import fused_hidden, fused_nll
from pygolf.model.gpt import GPT
from pygolf.model.graphs import loss_function
from pygolf.model.kernels import plain
from pygolf.runtime import Runtime


def small(layers: int, value_layers: tuple[int, ...]) -> ModelConfig:
    return ModelConfig(
        vocab_size=23,
        layers=layers,
        width=24,
        heads=4,
        kv_heads=2,
        mlp_width=20,
        sequence_length=16,
        rotary_dims=4,
        bigram_rows=13,
        bigram_width=5,
        value_embedding_width=7,
        value_embedding_layers=value_layers,
    )


def weighted_gradients(model: GPT, nll_BT: Tensor) -> dict[str, Tensor]:
    """Gradients of a sum of losses that weighs every token differently."""
    weight = torch.linspace(0.5, 2, nll_BT.numel(), dtype=nll_BT.dtype, device=nll_BT.device).view_as(nll_BT)
    model.zero_grad(set_to_none=True)
    (nll_BT * weight).mean().backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}


@pytest.mark.parametrize(("layers", "value_layers"), [(1, (0,)), (2, ()), (4, (2, 3)), (5, (1, 4))])
def test_losses_and_gradients_are_those_of_the_plain_model(layers: int, value_layers: tuple[int, ...]) -> None:
    model = random_model(small(layers, value_layers)).double()
    model.compute_dtype = torch.float64
    ids = torch.randint(23, (3, 13), generator=torch.Generator().manual_seed(2))
    expected, found = model(ids[:, :-1], ids[:, 1:]), fused_nll(model, ids[:, :-1], ids[:, 1:])
    # The plain model takes its logits in fp32 even here.
    torch.testing.assert_close(found.float(), expected.float(), rtol=0, atol=5e-6)
    exact, hand_written = weighted_gradients(model, expected.double()), weighted_gradients(model, found)
    for name, gradient in exact.items():
        torch.testing.assert_close(hand_written[name], gradient, rtol=1e-4, atol=1e-7, msg=name)


def test_without_gradients_it_gives_the_same_states() -> None:
    model = random_model(small(3, (1,)))
    ids = torch.randint(23, (2, 16), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(fused_hidden(model, ids), model.hidden(ids), rtol=0, atol=1e-5)


# --- on a GPU ---


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16)


def vector(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda")


def cases(d: int, heads: int, kv: int, e: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Every step of `plain` with arguments for 3 sequences of 37 tokens: no multiple of any tile."""
    t, n = 37, 3 * 37
    cos, sin = (table.cuda() for table in rotary_tables(t, e // 4, 100.0))
    mix, w, gain, gate = vector(2, d), vector(d), vector(heads), vector(d)
    qkv, y = normal(n, (heads + 2 * kv) * e), normal(n, heads, e)
    for skip, weight in ((None, None), (normal(n, d), w)):
        x, x0 = normal(n, d), normal(n, d)
        yield "mix_norm", (x, x0, mix, 0.7, skip, weight)
        rstd = plain.mix_norm(x, x0, mix, 0.7, skip, weight)[2]
        for extra, dx0 in ((None, None), (normal(n, d), normal(n, d))):
            yield "mix_norm_backward", (normal(n, d), normal(n, d), rstd, x, x0, mix, 0.7, skip, weight, dx0, extra)
    normed, rstd = plain.norm(normal(n, d), 0.6)
    yield "norm", (normal(n, d), 0.6)
    yield "norm_backward", (normal(n, d), normed, rstd, 0.6, None)
    yield "norm_backward", (normal(n, d), normed, rstd, 0.6, normal(n, d))
    yield "split_heads", (qkv, gain, cos, sin, kv)
    dq, dkv = normal(n, heads, e), [normal(n, kv, e) for _ in range(3)]
    yield "split_heads_backward", (dq, *dkv, qkv, gain, cos, sin)
    yield "remove_own_value", (y, qkv, kv)
    yield "remove_own_value_backward", (normal(n, heads * e), y, qkv, kv)
    yield "mlp_up", (normal(n, d), normal(3 * d, d))
    yield "mlp_activated", (normal(n, d), normal(3 * d, d))
    yield "mlp_down_backward", (normal(n, d), normal(d, 3 * d), normal(n, 3 * d))
    yield "add_values", (qkv, vector(50, kv * e), torch.randint(50, (n,), device="cuda"))
    ids, rows = torch.randint(50, (3, t), device="cuda"), torch.randint(70, (3, t), device="cuda")
    tables = normal(50, d), normal(70, d), gate
    yield "embed", (ids, rows, *tables)
    yield "embed_backward", (normal(n, d), ids, rows, *tables)
    yield "add_rows", (qkv[:, -kv * e :], plain.sort_index(ids.flatten()), 50)
    logits, targets = 5 * normal(n, 50), ids.flatten()
    yield "softcap_nll", (logits, targets, 30.0)
    yield "softcap_nll_backward", (vector(n), logits, plain.softcap_nll(logits, targets, 30.0)[1], targets, 30.0)


def outcome(step: Any, arguments: tuple[Any, ...]) -> list[Tensor]:
    """What a step returns, and the argument that it changes."""
    arguments = tuple(a.clone() if isinstance(a, Tensor) else a for a in arguments)
    result = step(*arguments)
    results = list(result) if isinstance(result, tuple) else [result]
    changed = [arguments[0]] if step.__name__ == "add_values" else []
    return [*(r for r in results if r is not None), *changed]


@pytest.mark.gpu
@pytest.mark.parametrize("sizes", [(512, 8, 4, 64), (96, 2, 1, 24)], ids=["record", "odd"])
def test_every_kernel_equals_its_twin(sizes: tuple[int, int, int, int]) -> None:
    from pygolf.model.kernels import fused

    torch.manual_seed(0)
    for name, arguments in cases(*sizes):
        found, twin = outcome(getattr(fused, name), arguments), outcome(getattr(plain, name), arguments)
        wide = tuple(a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments)
        exact = outcome(getattr(plain, name), wide)
        for i, (f, t, x) in enumerate(zip(found, twin, exact, strict=True)):
            assert (f.dtype, f.shape) == (t.dtype, t.shape), name
            size = x.double().norm()
            error, rounding = (f.double() - x).norm() / size, (t.double() - x).norm() / size
            assert error <= 2 * rounding + 1e-6, f"{name} {i}: error {error:.1e}, its twin's {rounding:.1e}"


@pytest.mark.gpu
def test_the_whole_model_is_as_exact_as_the_plain_one_in_bf16() -> None:
    config = ModelConfig(layers=5, sequence_length=256, value_embedding_layers=(3, 4))
    model = random_model(config, 0.03).cuda()
    ids = torch.randint(1024, (4, 257), device="cuda")
    exact = copy.deepcopy(model)
    expected = exact(ids[:, :-1], ids[:, 1:])
    gradients = weighted_gradients(exact, expected)
    expected = expected.detach()
    model.compute_dtype = torch.bfloat16
    errors = {}
    for path, loss in (("plain", model), ("fused", loss_function(model, Runtime(ids.device, compiled=True)))):
        for _ in range(2):  # the second time, the fused path replays its graphs
            nll = loss(ids[:, :-1], ids[:, 1:])
            found = weighted_gradients(model, nll)
        nll = nll.detach()
        errors[path] = {n: float((found[n] - g).norm() / g.norm()) for n, g in gradients.items()}
        errors[path]["losses"] = float((nll - expected).norm() / expected.norm())
    for name, error in errors["fused"].items():
        # A scalar's gradient is one number, right by chance or wrong by chance.
        slack = 0.05 if name in gradients and gradients[name].numel() == 1 else 1e-4
        assert error <= 2 * errors["plain"][name] + slack, f"{name}: {error:.1e}, plain {errors['plain'][name]:.1e}"
