"""The quantize stage of a run, by either method: calibration on all ranks, then codes and an artifact on one.

`rd`: the rate-distortion quantizer (moments, factors, rd), fitted to the budget by its one step.
`record`: the record's int6 GPTQ (gptq), fitted by coarser steps and zeroed codes (budget).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pygolf.config import QuantConfig
from pygolf.model.gpt import GPT, parameter_role
from pygolf.progress import Reporter
from pygolf.quant.artifact import artifact_bytes
from pygolf.quant.budget import fit_budget
from pygolf.quant.calibrate import collect_hessians, collect_moments
from pygolf.quant.factors import matrix_factors
from pygolf.quant.gptq import QuantizedModel, quantize_model
from pygolf.quant.moments import Moments
from pygolf.quant.rd import CodedModel, Coder, dequantize
from pygolf.quant.search import finest_step, fit_step
from pygolf.runtime import Runtime


@dataclass(frozen=True)
class PackedModel:
    """An artifact that is not yet a file."""

    data: bytes
    errors: dict[str, float]
    """Per matrix: `rd`, the expected rise of the loss in nats a token; `record`, trace((W - Q) H (W - Q)ᵀ)."""


def calibrate(
    model: GPT,
    windows_u16: Tensor,
    config: QuantConfig,
    runtime: Runtime,
    *,
    microbatch_windows: int,
    seed: int,
    reporter: Reporter,
) -> dict[str, Moments]:
    """Second moments over the windows [N, T + 1], the same on every rank; for `record` all rows weigh the same."""
    if config.method == "record":
        hessians = collect_hessians(
            model, windows_u16, runtime, microbatch_windows=microbatch_windows, reporter=reporter
        )
        rows = {name: p.size(0) for name, p in model.named_parameters() if name in hessians}
        return {name: Moments(h, h.new_ones(rows[name])) for name, h in hessians.items()}
    return collect_moments(
        model,
        windows_u16,
        runtime,
        microbatch_windows=microbatch_windows,
        whole_rows=config.two_sided,
        seed=seed,
        reporter=reporter,
    )


def pack_model(
    model: GPT,
    moments: dict[str, Moments],
    config: QuantConfig,
    manifest: dict[str, Any],
    *,
    allowed: int,
    threads: int,
    reporter: Reporter,
) -> PackedModel:
    """Codes and packs the model in at most `allowed` bytes; `quantization` in the manifest says how.

    Raises BudgetError, saying by how many bytes it is too large, and NumericError, naming the matrix.
    """
    pack = _pack_record if config.method == "record" else _pack_rd
    return pack(model, moments, config, manifest, allowed, threads, reporter)


def _pack_rd(
    model: GPT,
    moments: dict[str, Moments],
    config: QuantConfig,
    manifest: dict[str, Any],
    allowed: int,
    threads: int,
    reporter: Reporter,
) -> PackedModel:
    named = {name: p.detach().float() for name, p in model.named_parameters()}
    weights = {name: w for name, w in named.items() if parameter_role(name) != "vector"}
    vectors = {name: w.half().cpu() for name, w in named.items() if name not in weights}
    factors = matrix_factors(moments, two_sided=config.two_sided, warn=reporter.say)
    coder = Coder(weights, factors, states=config.states, threads=threads)
    count = sum(w.numel() for w in weights.values())

    def pack(step: float) -> bytes:
        quantization = {"method": "rd", "step": step, "states": config.states, "two_sided": config.two_sided}
        return artifact_bytes(
            CodedModel(coder.code(step), vectors), {**manifest, "quantization": quantization}, config, threads
        )

    reporter.stage("quantize", 1)
    packed = fit_step(
        pack,
        estimate=coder.estimate_bytes,
        finest=finest_step(count),
        allowed=allowed,
        room="Raise quant.budget_bytes or train a smaller model",
    )
    reporter.advance(1, 1, f"step {packed.step:.3g} after {packed.packings} packings")
    values = dequantize(coder.code(packed.step))
    return PackedModel(packed.data, {name: moments[name].loss(w - values[name]) for name, w in weights.items()})


def _pack_record(
    model: GPT,
    moments: dict[str, Moments],
    config: QuantConfig,
    manifest: dict[str, Any],
    allowed: int,
    threads: int,
    reporter: Reporter,
) -> PackedModel:
    hessians = {name: m.columns for name, m in moments.items()}

    def solve(coarseness: float) -> QuantizedModel:
        return quantize_model(model, hessians, config, coarseness=coarseness, threads=threads, reporter=reporter)

    def pack(quantized: QuantizedModel, quantization: dict[str, Any]) -> bytes:
        return artifact_bytes(quantized, {**manifest, "quantization": quantization}, config, threads)

    def measure(quantized: QuantizedModel) -> int:
        # Room for what the fit itself adds to the manifest.
        return len(pack(quantized, {"coarseness": 1.2345678901234567, "zeroed": quantized.codes}))

    fit = fit_budget(solve, measure, allowed)
    data = pack(fit.model, {"method": "record", "coarseness": fit.coarseness, "zeroed": fit.zeroed})
    return PackedModel(data, {name: m.error for name, m in fit.model.matrices.items()})
