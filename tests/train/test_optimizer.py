"""AdamW is that of torch, a step is the rule parameter by parameter, kernels on CUDA are their twins."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pygolf.config import TrainConfig
from pygolf.model.gpt import GPT, parameter_role
from pygolf.runtime import Runtime
from pygolf.train import muon
from pygolf.train.adamw import AdamW, RateGroup
from pygolf.train.optimizer import Optimizer


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_adamw_is_that_of_torch(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(3, 4, generator=generator), torch.randn(5, generator=generator), torch.randn(2)]
    ours, theirs = ([nn.Parameter(p.clone().to(device)) for p in start] for _ in range(2))
    adam = AdamW([RateGroup(ours[:1], 0.1), RateGroup(ours[1:], 0.02)], (0.9, 0.95), 0.04)
    groups = [{"params": theirs[:1], "lr": 0.1}, {"params": theirs[1:], "lr": 0.02}]
    reference = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.04)
    for scale in (1.0, 1.0, 0.5):
        for mine, other in zip(ours[:2], theirs[:2], strict=True):  # the last never has a gradient
            mine.grad = torch.randn(mine.shape, generator=generator).to(device)
            other.grad = 0.25 * mine.grad
        for group, lr in zip(reference.param_groups, (0.1, 0.02), strict=True):
            group["lr"] = lr * scale
        adam.step(scale, torch.tensor(0.25, device=device))
        reference.step()
    torch.testing.assert_close(ours, theirs)


def test_a_step_is_the_rule_parameter_by_parameter(small_model: GPT, cpu: Runtime) -> None:
    config = TrainConfig(clip_norm=0.3)
    generator = torch.Generator().manual_seed(3)
    for p in small_model.parameters():
        p.grad = torch.randn(p.shape, generator=generator)
    norm = torch.cat([p.grad.flatten() for p in small_model.parameters() if p.grad is not None]).norm()
    expected = {}
    for name, p in small_model.named_parameters():
        g, w = p.grad * 0.3 / norm, p.detach()
        if parameter_role(name) == "matrix":
            lr, update = 0.5 * config.matrix_lr, muon.newton_schulz((g + 0.92 * g)[None])[0]
            expected[name] = w * (1 - lr * 0.04) - lr * max(1, w.size(0) / w.size(1)) ** 0.5 * update
        else:
            lr = 0.5 * (config.embedding_lr if parameter_role(name) == "table" else config.scalar_lr)
            expected[name] = w * (1 - lr * 0.04) - lr * g / (g.abs() + 1e-8)
    optimizer = Optimizer(small_model, config, cpu)
    found, _ = optimizer.reduce(torch.zeros(1))
    assert float(found) == pytest.approx(float(norm), rel=1e-5)
    optimizer.step(found, optimizer.rates(0, 0.5))
    for name, p in small_model.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name], atol=2e-5, rtol=1e-5, msg=name)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(5, 512, 512), (3, 256, 512), (2, 512, 1536), (2, 1536, 512), (3, 96, 160)])
def test_newton_schulz_on_cuda_is_that_in_fp64(shape: tuple[int, int, int]) -> None:
    x = torch.randn(shape, device="cuda")
    expected = muon.newton_schulz(x.double())
    found = muon.newton_schulz(x.bfloat16())
    assert float((found - expected).norm() / expected.norm()) < 0.03
    gram = muon.square(x.bfloat16())
    if shape[1] <= shape[2]:
        torch.testing.assert_close(gram.float(), x @ x.mT, atol=2.0, rtol=0.02)
        assert torch.equal(gram, gram.mT)


@pytest.mark.gpu
def test_nesterov_kernel_is_its_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    gradient, velocity = torch.randn(2, 3, 70, 90, device="cuda")
    clip, other = torch.tensor(0.3, device="cuda"), velocity.clone()
    found = muon.nesterov(gradient, velocity, clip, 0.95, torch.float32)
    monkeypatch.setattr(muon, "available", lambda device: False)
    expected = muon.nesterov(gradient, other, clip, 0.95, torch.float32)
    torch.testing.assert_close((found, velocity), (expected, other))
