"""The rate-distortion quantizer for any torch module: nn.Linear and nn.Embedding weights as codes, the rest in fp16.

coded = pygolf.quantize(module, batches, loss=my_loss, budget_bytes=4_000_000)
print(coded.table())
coded.save("model.golf")
pygolf.load_quantized("model.golf", another)        # a module built like the first
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pygolf
from pygolf._core import ArtifactReader, coded_bytes
from pygolf.config import QuantConfig
from pygolf.errors import ArgumentError, FormatError
from pygolf.files import write_bytes
from pygolf.quant.artifact import artifact_bytes
from pygolf.quant.factors import matrix_factors
from pygolf.quant.moments import MomentCollector, Moments
from pygolf.quant.rd import CodedMatrix, CodedModel, Coder, dequantize
from pygolf.quant.search import Packed, finest_step, fit_step
from pygolf.runtime import Runtime

Loss = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class LayerReport:
    """What one weight takes and costs."""

    name: str
    shape: tuple[int, ...]
    bits: float
    """Packed bits a weight, factors included."""
    loss: float
    """Expected rise of the mean loss."""


@dataclass(frozen=True)
class QuantizedModule:
    """Result of :func:`quantize`."""

    matrices: dict[str, CodedMatrix]
    """Codes and factors by the weight's name."""
    others: dict[str, Tensor]
    """All other parameters and floating-point buffers."""
    layers: list[LayerReport]
    step: float
    data: bytes
    """The artifact."""

    def save(self, path: str | Path) -> None:
        """Writes the artifact, whole or not at all. Raises IoError."""
        write_bytes(Path(path), self.data)

    def table(self) -> str:
        """The report as text: a line a layer, and the whole."""
        lines = [f"{'weight':<40} {'shape':>14} {'bits':>6} {'loss':>9}"]
        lines += [f"{x.name:<40} {_by(x.shape):>14} {x.bits:6.2f} {x.loss:9.2e}" for x in self.layers]
        lines.append(
            f"{len(self.data):,} bytes in all, expected rise of the loss {sum(x.loss for x in self.layers):.2e}"
        )
        return "\n".join(lines)


def quantize(
    module: nn.Module,
    batches: Iterable[Any],
    *,
    loss: Loss | None = None,
    budget_bytes: int | None = None,
    step: float | None = None,
    states: int = 8,
    two_sided: bool = True,
    threads: int = 0,
) -> QuantizedModule:
    """Codes the nn.Linear and nn.Embedding weights of a module, which stays as it is.

    batches: calibration data, as the module takes it; a forward and backward pass each. Put the module into eval mode
    before if it has dropout. loss(module, batch): the losses of single examples (best) or their mean; default:
    what module(batch), or module(*batch) for a tuple or list, returns.
    budget_bytes: most bytes of the artifact; step is then found. step: s, the expected rise of the mean loss is
    weights · s² / 24. Give one of the two. states: of the trellis, 1, 4 or 8. two_sided: feedback of rounding errors
    along rows too, for which moments [R, R] of the outputs' gradients are gathered as well.

    Weights that took no part in the loss, and all other parameters, are kept in fp16 (fp32 if fp16 cannot hold them).
    Raises ArgumentError, BudgetError, and NumericError that names the weight. Method and sources: docs/quantizer.md.
    """
    if (budget_bytes is None) == (step is None):
        raise ArgumentError(f"budget_bytes is {budget_bytes} and step {step}; give one of them")
    moments = _moments(module, batches, loss or _call, two_sided)
    named = dict(_tensors(module))
    weights = {name: named[name].detach().float() for name in moments}
    others = {name: _half(tensor) for name, tensor in named.items() if name not in weights}
    factors = matrix_factors(moments, two_sided=two_sided, warn=warnings.warn)
    coder = Coder(weights, factors, states=states, threads=threads)

    def pack(step: float) -> bytes:
        manifest = {"pygolf": pygolf.__version__, "quantization": {"method": "rd", "step": step, "states": states}}
        return artifact_bytes(CodedModel(coder.code(step), others), manifest, QuantConfig(), threads)

    packed = Packed(step, pack(step), 1) if step is not None else _fitted(pack, coder, weights, budget_bytes or 0)
    matrices = coder.code(packed.step)
    values = dequantize(matrices)
    layers = [_report(name, matrices[name], moments[name].loss(w - values[name])) for name, w in weights.items()]
    return QuantizedModule(matrices, others, layers, packed.step, packed.data)


def load_quantized(path: str | Path, module: nn.Module) -> None:
    """Copies an artifact of :func:`quantize` into a module of the same shapes.

    Raises IoError, FormatError for a damaged file, and FormatError, naming the tensor, for another module's.
    """
    reader = ArtifactReader(str(path))
    found, wanted = {t.name for t in reader.tensors}, dict(_tensors(module))
    if found != set(wanted):
        odd = sorted(found ^ set(wanted))[0]
        raise FormatError(
            f"{path}: {odd} is only in the {'file' if odd in found else 'module'}; build it as it was saved"
        )
    with torch.no_grad():
        for name, tensor in wanted.items():
            values = torch.from_numpy(reader.dequantize(name))
            if values.numel() != tensor.numel():
                raise FormatError(f"{path}: {name} has shape {tuple(values.shape)}, the module's {tuple(tensor.shape)}")
            tensor.copy_(values.view(tensor.shape))


def _call(module: nn.Module, batch: Any) -> Tensor:
    result: Tensor = module(*batch) if isinstance(batch, (tuple, list)) else module(batch)
    return result


def _moments(module: nn.Module, batches: Iterable[Any], loss: Loss, two_sided: bool) -> dict[str, Moments]:
    examples = 0
    with MomentCollector(module, whole_rows=two_sided) as collector:
        for batch in batches:
            before = collector.inputs
            losses = loss(module, batch)
            # A single number is the mean over what the matrices read: as a sum it has the gradients of single losses.
            count = losses.numel() if losses.dim() else collector.inputs - before
            (losses.sum() if losses.dim() else losses * count).backward()
            examples += count
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    moments = collector.moments(max(examples, 1), Runtime(device))
    if not moments:
        raise ArgumentError(
            f"no nn.Linear or nn.Embedding of {type(module).__name__} took part in the loss of {examples} examples; "
            f"are there batches, and does the loss come from the module's forward?"
        )
    return moments


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter once, and the floating-point buffers that a state_dict holds."""
    yield from module.named_parameters()
    kept = module.state_dict(keep_vars=True)
    for name, buffer in module.named_buffers():
        if name in kept and buffer.is_floating_point():
            yield name, buffer


def _half(tensor: Tensor) -> Tensor:
    """fp16 on the CPU, or fp32 if fp16 cannot hold it; of 1 to 4 dimensions."""
    tensor = tensor.detach().float().cpu()
    tensor = tensor if 1 <= tensor.dim() <= 4 else tensor.flatten()
    half = tensor.half()
    return half if half.isfinite().all() else tensor


def _fitted(pack: Callable[[float], bytes], coder: Coder, weights: dict[str, Tensor], budget_bytes: int) -> Packed:
    return fit_step(
        pack,
        estimate=coder.estimate_bytes,
        finest=finest_step(sum(w.numel() for w in weights.values())),
        allowed=budget_bytes,
        room="Raise budget_bytes or take a smaller module",
    )


def _report(name: str, matrix: CodedMatrix, loss: float) -> LayerReport:
    codes, row_logs, column_logs = matrix.arrays()
    bits = 8 * coded_bytes(codes, row_logs, column_logs, matrix.states) / codes.size
    return LayerReport(name, codes.shape, bits, loss)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
