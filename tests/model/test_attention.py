"""The flash path is laid out as flash-attn wants it, and is only taken for whole windows."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from pygolf.errors import ConfigError
from pygolf.model.attention import attend, attend_cudnn, attend_flash, pick_attention


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Stands in for flash_attn.cute: [B, T, heads, E] in and out, causal, grouped queries; records the shapes."""
    seen: list[tuple[int, ...]] = []

    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Any:
        assert causal
        seen.append(tuple(q.shape))
        groups = q.size(2) // k.size(2)
        k, v = k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)
        scores = torch.einsum("bthe,bshe->bhts", q, k) / q.size(-1) ** 0.5
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        weights = scores.masked_fill(future, -torch.inf).softmax(-1)
        return torch.einsum("bhts,bshe->bthe", weights, v), scores.logsumexp(-1)

    package, module = ModuleType("flash_attn"), ModuleType("flash_attn.cute")
    module.flash_attn_func = flash_attn_func  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.setitem(sys.modules, "flash_attn.cute", module)
    return seen


def heads(t: int, s: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, t, 8, generator=g), *(torch.randn(2, 2, s, 8, generator=g) for _ in range(2))


def test_flash_gives_what_sdpa_gives(calls: list[tuple[int, ...]]) -> None:
    qkv = heads(7, 7)
    torch.testing.assert_close(attend_flash(*qkv), attend(*qkv), atol=1e-5, rtol=1e-5)
    assert calls == [(2, 7, 4, 8)]


@pytest.mark.parametrize(("t", "s"), [(1, 7), (3, 7), (1, 1)])
def test_decoding_with_a_cache_stays_with_sdpa(t: int, s: int, calls: list[tuple[int, ...]]) -> None:
    qkv = heads(t, s)
    assert torch.equal(attend_flash(*qkv), attend(*qkv))
    assert not calls


@pytest.mark.parametrize(("name", "need"), [("flash", "a GPU from Hopper on"), ("cudnn", "CUDA")])
def test_kernels_that_the_cpu_lacks_say_what_they_need(name: str, need: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}, which cannot run on cpu: it needs {need}. Use auto"):
        pick_attention(name, torch.device("cpu"))
    assert pick_attention("auto", torch.device("cpu")) is attend


def test_what_flash_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setitem(sys.modules, "flash_attn.cute", None)
    cuda = torch.device("cuda")
    with pytest.raises(ConfigError, match=r"flash_attn\.cute.*pip install pygolf\[flash\]"):
        pick_attention("flash", cuda)
    assert pick_attention("auto", cuda) is attend


def test_auto_takes_flash_where_it_runs(monkeypatch: pytest.MonkeyPatch, calls: list[tuple[int, ...]]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert pick_attention("auto", torch.device("cuda")) is attend_flash
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert pick_attention("auto", torch.device("cuda")) is attend


@pytest.mark.gpu
def test_forced_cudnn_gives_what_sdpa_gives() -> None:
    qkv = [x.cuda().bfloat16() for x in (torch.randn(2, 4, 128, 64), *torch.randn(2, 2, 2, 128, 64))]
    torch.testing.assert_close(attend_cudnn(*qkv), attend(*qkv), atol=0.02, rtol=0.02)
