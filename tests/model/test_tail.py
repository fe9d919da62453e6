"""Fused scoring and decoding steps against the plain model; the kernels of both on CUDA against their plain twins."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from random_models import random_model
from torch import Tensor

from pygolf.config import ModelConfig
from pygolf.model import decode as decode_module
from pygolf.model import fused, tail
from pygolf.model.decode import Decoder, attend_cached
from pygolf.model.generate import sample_windows
from pygolf.model.gpt import GPT
from pygolf.model.kernels import plain
from pygolf.model.tail import FusedTail


@pytest.mark.parametrize("scored", [1, 5, 16])
@pytest.mark.parametrize("layers", [(3, (2,)), (4, (0, 3))])  # the last block without and with a skip
def test_tail_is_the_end_of_the_whole_window(
    small_config: ModelConfig, layers: tuple[int, tuple[int, ...]], scored: int
) -> None:
    config = ModelConfig(**{**vars(small_config), "layers": layers[0], "value_embedding_layers": layers[1]})
    model, ids = random_model(config, 0.1), torch.randint(48, (3, 16), generator=torch.Generator().manual_seed(2))
    expected = model.hidden(ids)[:, -scored:]
    torch.testing.assert_close(FusedTail(model)(ids, scored), expected, atol=2e-5, rtol=0)


class _Strict:
    """The plain steps, for tensors that lie as the Triton kernels read them."""

    def __getattr__(self, name: str) -> Callable[..., object]:
        def step(*arguments: object) -> object:
            assert all(x.is_contiguous() for x in arguments if isinstance(x, Tensor)), name
            return getattr(plain, name)(*arguments)

        return step


@pytest.mark.parametrize("scored", [1, 5, 16])
def test_kernels_get_tensors_without_gaps(
    small_model: GPT, windows: Tensor, scored: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (tail, fused, decode_module):
        monkeypatch.setattr(module, "kernels", lambda device: _Strict())
    ids = windows[:3].long()[:, :16]
    FusedTail(small_model)(ids, scored)
    decoded_logits(small_model, ids, scored)


def decoded_logits(model: GPT, ids_BT: Tensor, primed: int) -> Tensor:
    """Logits [B, T - primed + 1, V] behind each position from primed - 1 on, the ids forced."""
    seen: list[Tensor] = []

    def draw(logits_BV: Tensor) -> Tensor:
        seen.append(logits_BV.clone())
        return ids_BT[:, min(primed + len(seen) - 1, ids_BT.size(1) - 1)][:, None]

    decoder = Decoder(model, len(ids_BT), ids_BT.size(1), draw)
    seen.clear()  # what recording drew
    decoder._graph = None  # the drawing function is Python, which a graph would not run again
    decoder.prime(ids_BT[:, :primed])
    for _ in range(primed, ids_BT.size(1)):
        decoder.next()
    return torch.stack(seen, dim=1)


@pytest.mark.parametrize("primed", [1, 2, 9])
def test_decoder_steps_are_the_whole_window(small_model: GPT, windows: Tensor, primed: int) -> None:
    ids = windows[:3, :16].long()
    expected = small_model.logits(small_model.hidden(ids))[:, primed - 1 :]
    with torch.no_grad():
        torch.testing.assert_close(decoded_logits(small_model, ids, primed), expected.detach(), atol=2e-5, rtol=0)


def rms(x: Tensor) -> float:
    return float(x.float().square().mean().sqrt())


@pytest.fixture(scope="module")
def gpu_models() -> tuple[GPT, GPT]:
    """One model in fp32 and in bf16."""
    exact = random_model(ModelConfig(layers=5, sequence_length=200, value_embedding_layers=(3, 4)), 0.1).cuda()
    rounded = copy.deepcopy(exact)
    rounded.compute_dtype = torch.bfloat16
    return exact, rounded


@pytest.mark.gpu
@torch.no_grad()
def test_fused_steps_are_as_exact_as_the_plain_model_in_bf16(gpu_models: tuple[GPT, GPT]) -> None:
    exact, rounded = gpu_models
    ids = torch.randint(1024, (5, 200), device="cuda")
    expected = exact.hidden(ids)
    error = rms(rounded.hidden(ids) - expected)
    for scored in (1, 64, 200):
        assert rms(FusedTail(rounded)(ids, scored) - expected[:, -scored:]) < 1.5 * error
    logits = exact.logits(expected)[:, 2:]
    error = rms(rounded.logits(rounded.hidden(ids))[:, 2:] - logits)
    assert rms(decoded_logits(rounded, ids, 3) - logits) < 1.5 * error


@pytest.mark.gpu
@pytest.mark.parametrize("position", [0, 1, 63, 64, 150])
def test_decoding_kernel_is_its_twin(position: int) -> None:
    from pygolf.model.kernels import decode

    model = GPT(ModelConfig(sequence_length=151)).cuda()
    qkv = torch.randn(7, 1024, device="cuda", dtype=torch.bfloat16)
    keys, values = torch.randn(2, 7, 4, 151, 64, device="cuda", dtype=torch.bfloat16)
    gain, at = torch.rand(8, device="cuda") * 5, torch.full((1,), position, dtype=torch.int32, device="cuda")
    other = keys.clone(), values.clone()
    exact = [x.cpu().float() for x in (qkv, gain, model.cos, model.sin, keys, values)]
    found = decode.attend_cached(qkv, gain, model.cos, model.sin, keys, values, at)
    rounded = attend_cached(qkv, gain, model.cos, model.sin, *other, at)
    expected = attend_cached(*exact, at.cpu()).cuda()
    assert rms(found - expected) < 1.2 * rms(rounded - expected) + 1e-3 * rms(expected)
    torch.testing.assert_close((keys, values), other, atol=0.03, rtol=0.02)


@pytest.mark.gpu
def test_recorded_sampling_is_random_and_repeatable(gpu_models: tuple[GPT, GPT]) -> None:
    model = gpu_models[1]
    first, again, other = (
        sample_windows(model, 9, 300, temperature=1.0, seed=s, bos_id=1, batch=4, banned=[0, 5]) for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({tuple(row) for row in first.tolist()}) == 9
    assert first.shape == (9, 301)
    assert not torch.isin(first[:, 1:], torch.tensor([0, 5], device="cuda")).any()
