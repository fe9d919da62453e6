"""The training loss as one call: fused kernels replayed from CUDA graphs, or the plain model, compiled or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pygolf.model.fused import fused_nll, supports
from pygolf.model.gpt import GPT
from pygolf.runtime import Runtime

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Ids and targets [B, T] -> nats of every target [B, T]."""


def loss_function(model: GPT, runtime: Runtime) -> LossFunction:
    """The fastest form of `model` for training: the fused kernels where they run, else torch.compile where it is on.

    Weights may change in place between calls, as optimizers do; the gradients of a call must be taken before the next.
    """
    if not runtime.compiled:
        return model
    if supports(model.config, runtime.device):
        return GraphedLoss(model)
    compiled: LossFunction = torch.compile(model, dynamic=False)
    return compiled


class GraphedLoss:
    """`fused_nll` of one model. The first shape is captured as a graph; other shapes run kernel by kernel."""

    def __init__(self, model: GPT) -> None:
        self._model = model
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._capture: _Capture | None = None

    def __call__(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return fused_nll(self._model, ids_BT, targets_BT)
        if self._capture is None:
            self._capture = _Capture(self._model, self._parameters, ids_BT, targets_BT)
        if ids_BT.shape != self._capture.ids_BT.shape:
            return fused_nll(self._model, ids_BT, targets_BT)
        nll_BT: Tensor = _Replay.apply(self._capture, ids_BT, targets_BT, *self._parameters)
        return nll_BT


class _Capture:
    """Forward and backward of one shape as two graphs, which share their memory, and the tensors that they use."""

    def __init__(self, model: GPT, parameters: list[torch.nn.Parameter], ids_BT: Tensor, targets_BT: Tensor) -> None:
        self.ids_BT, self.targets_BT = ids_BT.clone(), targets_BT.clone()
        self.dnll_BT = torch.ones(ids_BT.shape, device=ids_BT.device)
        self.replays = 0
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # kernels are compiled and chosen before the capture, which allows neither
            self._gradients(fused_nll(model, self.ids_BT, self.targets_BT), parameters)
        torch.cuda.current_stream().wait_stream(side)
        self.forward, self.backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.forward, capture_error_mode="thread_local"):
            nll_BT = fused_nll(model, self.ids_BT, self.targets_BT)
        with torch.cuda.graph(self.backward, pool=self.forward.pool(), capture_error_mode="thread_local"):
            self.gradients = self._gradients(nll_BT, parameters)
        self.nll_BT = nll_BT.detach()

    def _gradients(self, nll_BT: Tensor, parameters: list[torch.nn.Parameter]) -> list[Tensor]:
        found = torch.autograd.grad(nll_BT, parameters, self.dnll_BT, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


class _Replay(torch.autograd.Function):
    """One replay of both graphs. Gradients go straight to .grad, all in a launch or two: autograd would take one each.

    What leaves the graphs is copied, because the next replay writes over it.
    """

    @staticmethod
    def forward(ctx: Any, capture: _Capture, ids_BT: Tensor, targets_BT: Tensor, *parameters: Tensor) -> Tensor:
        capture.ids_BT.copy_(ids_BT)
        capture.targets_BT.copy_(targets_BT)
        capture.forward.replay()
        capture.replays += 1
        ctx.capture, ctx.replay, ctx.parameters = capture, capture.replays, parameters
        return capture.nll_BT.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dnll_BT: Tensor) -> tuple[Tensor | None, ...]:
        capture: _Capture = ctx.capture
        if ctx.replay != capture.replays:
            raise RuntimeError(
                f"backward of forward pass {ctx.replay} after pass {capture.replays}: the model's activations are "
                "overwritten by each pass; take the gradients before the next one"
            )
        capture.dnll_BT.copy_(dnll_BT)
        capture.backward.replay()
        _accumulate(ctx.parameters, capture.gradients)
        return None, None, None, *(None for _ in ctx.parameters)


def _accumulate(parameters: Sequence[Tensor], gradients: list[Tensor]) -> None:
    fresh, added, old, more = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter.grad is None:
            parameter.grad = torch.empty_like(parameter)
            fresh.append(parameter.grad)
            added.append(gradient)
        else:
            old.append(parameter.grad)
            more.append(gradient)
    if fresh:
        torch._foreach_copy_(fresh, added)
    if old:
        torch._foreach_add_(old, more)
