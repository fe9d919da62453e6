"""Second moments of pygolf's own model over windows of tokens: one forward, and one backward where gradients count.

The loss is the sum of the tokens' losses, so that gradients at outputs are those of single tokens; its labels are
drawn from the model itself, which makes G the Fisher information and needs no text that the model was not fitted to.
Shapes: N windows, B of a microbatch, T positions, V vocabulary, D model width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from pygolf.data.loader import to_ids
from pygolf.model.fused import embedded, supports
from pygolf.model.fused_blocks import Plan, Tokens, Weights, forward_block, through_blocks
from pygolf.model.gpt import GPT
from pygolf.model.kernels import kernels
from pygolf.progress import Reporter
from pygolf.quant.moments import MomentCollector, Moments, add_second_moment
from pygolf.runtime import Runtime

HEAD = "tok_emb.weight"


# What a block keeps of its forward -> the matrices that read it.
READERS = {
    "normed1_ND": ("attn.q", "attn.k", "attn.v"),
    "z_NX": ("attn.out",),
    "normed2_ND": ("mlp.up",),
    "a_NM": ("mlp.down",),
}


@torch.no_grad()
def collect_hessians(
    model: GPT, windows_u16: Tensor, runtime: Runtime, *, microbatch_windows: int, reporter: Reporter
) -> dict[str, Tensor]:
    """H [C, C] of every block matrix by its name, over windows [N, T + 1] shared by all ranks.

    Without gradients; by the fused forward where it runs.
    """
    batches = _batches(windows_u16, runtime, microbatch_windows, reporter)
    if supports(model.config, runtime.device):
        return fused_hessians(model, batches, runtime)
    with MomentCollector(model, gradients=False) as collector:
        for ids_BT in batches:
            model.hidden(ids_BT)
    return collector.columns(runtime)


@torch.no_grad()
def fused_hessians(model: GPT, batches: Iterable[Tensor], runtime: Runtime) -> dict[str, Tensor]:
    """`collect_hessians` of ids [B, T] by the fused forward: the blocks' matrices alone."""
    totals: dict[tuple[int, str], Tensor] = {}
    tokens = torch.zeros((), device=runtime.device)
    for ids_BT in batches:
        tokens += ids_BT.numel()
        _add_block_inputs(model, ids_BT, totals)
    runtime.sum(tokens)
    hessians: dict[str, Tensor] = {}
    for (layer, kept), total in sorted(totals.items()):
        mean = runtime.sum(total) / tokens
        hessians |= {f"blocks.{layer}.{module}.weight": mean for module in READERS[kept]}
    return hessians


def _add_block_inputs(model: GPT, ids_BT: Tensor, totals: dict[tuple[int, str], Tensor]) -> None:
    """Adds xᵀ x of every distinct input [B T, C] of block matrices to the total of (layer, name in READERS)."""
    tokens = Tokens(ids_BT, kernels(ids_BT.device))
    x0_ND = embedded(model, tokens)
    plan, weights = Plan.of(model, tokens), Weights.of(model).with_matrices(x0_ND.dtype)

    def step(layer: int, x_ND: Tensor, skip_ND: Tensor | None) -> Tensor:
        x_ND, saved = forward_block(plan, weights, layer, x_ND, x0_ND, skip_ND)
        for name in READERS:
            x_NC: Tensor = getattr(saved, name)
            if (layer, name) not in totals:
                totals[layer, name] = torch.zeros(x_NC.size(1), x_NC.size(1), device=x_NC.device)
            add_second_moment(totals[layer, name], x_NC)
        return x_ND

    through_blocks(plan, x0_ND, step)


def collect_moments(
    model: GPT,
    windows_u16: Tensor,
    runtime: Runtime,
    *,
    microbatch_windows: int,
    whole_rows: bool,
    seed: int,
    reporter: Reporter,
) -> dict[str, Moments]:
    """Moments of every matrix and table by its name, over windows [N, T + 1] shared by all ranks.

    `seed` and a window's number draw its labels, so ranks and microbatches change nothing. Raises NumericError, naming
    the matrix, for moments that are not finite.
    """
    numbers = range(runtime.rank, len(windows_u16), runtime.world_size)
    with MomentCollector(model, whole_rows=whole_rows) as collector:
        for i, ids_BT in enumerate(_batches(windows_u16, runtime, microbatch_windows, reporter)):
            hidden_BTD = model.hidden(ids_BT)
            collector.add_inputs(HEAD, hidden_BTD)
            batch = numbers[i * microbatch_windows :][: len(ids_BT)]
            noise_BTV = _label_noise(model, ids_BT, [(seed << 32) + number for number in batch])
            hidden_BTD.backward(_head_gradient(model, hidden_BTD.detach(), collector, noise_BTV))
    tokens = len(windows_u16) * (windows_u16.size(1) - 1)
    return collector.moments(tokens, runtime)


def _label_noise(model: GPT, ids_BT: Tensor, seeds: list[int]) -> Tensor:
    """Exponential noise [B, T, V], of each window by its own seed."""
    noise = torch.empty(*ids_BT.shape, model.config.vocab_size, device=ids_BT.device)
    for window, seed in zip(noise, seeds, strict=True):
        window.exponential_(generator=torch.Generator(ids_BT.device).manual_seed(seed))
    return noise


@torch.no_grad()
def _head_gradient(model: GPT, hidden_BTD: Tensor, collector: MomentCollector, noise_BTV: Tensor) -> Tensor:
    """d loss / d hidden of labels drawn from the model; the gradient by the head's outputs goes to the collector."""
    logits_BTV = model.logits(hidden_BTD)
    gradient_BTV = logits_BTV.softmax(dim=-1)
    labels_BT1 = (gradient_BTV / noise_BTV).argmax(dim=-1, keepdim=True)  # argmax of p / noise is a draw from p
    gradient_BTV.scatter_add_(-1, labels_BT1, gradient_BTV.new_full((1, 1, 1), -1.0).expand_as(labels_BT1))
    gradient_BTV *= 1 - (logits_BTV / model.config.logit_cap).square()  # through cap · tanh(z / cap)
    collector.add_gradients(HEAD, gradient_BTV)
    return gradient_BTV.to(hidden_BTD.dtype) @ model.tok_emb.weight.to(hidden_BTD.dtype)


def _batches(windows_u16: Tensor, runtime: Runtime, size: int, reporter: Reporter) -> Iterator[Tensor]:
    """Ids [B, T] of this rank's windows."""
    reporter.stage("calibrate", len(windows_u16))
    mine = windows_u16[runtime.rank :: runtime.world_size]
    for i, batch in enumerate(mine.split(size)):
        yield to_ids(batch, runtime.device)[0]
        reporter.advance(min((i + 1) * size * runtime.world_size, len(windows_u16)), len(windows_u16))
