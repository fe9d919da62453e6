"""Codes of a whole model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pygolf.config import QuantConfig
from pygolf.errors import NumericError
from pygolf.model.gpt import GPT, parameter_role
from pygolf.progress import Reporter
from pygolf.quant.calibrate import collect_hessians
from pygolf.quant.gptq import QuantizedModel, clip_candidates, quantize_model, round_rows
from pygolf.runtime import Runtime

QUIET = Reporter(enabled=False)


def quantized(model: GPT, hessians: dict[str, Tensor], config: QuantConfig, coarseness: float = 1.0) -> QuantizedModel:
    return quantize_model(model, hessians, config, coarseness=coarseness, threads=1, reporter=QUIET)


@pytest.fixture
def hessians(small_model: GPT, windows: Tensor, cpu: Runtime) -> dict[str, Tensor]:
    return collect_hessians(small_model, windows, cpu, microbatch_windows=24, reporter=QUIET)


def test_candidates_are_quantiles_and_multiples_of_the_deviation() -> None:
    weight = torch.tensor([[1.0, -2.0, 3.0, -4.0], [0.0, 0.0, 0.0, 8.0]])
    clips = clip_candidates(weight, QuantConfig(clip_quantiles=(0.5, 1.0), clip_stds=(2.0,)))
    expected = [[2.5, 0.0], [4.0, 8.0], [2 * weight[0].std(correction=0), 2 * weight[1].std(correction=0)]]
    torch.testing.assert_close(clips, torch.tensor(expected))


def test_rounded_rows_are_within_half_a_step_and_zero_rows_stay_zero() -> None:
    weight = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    matrix = round_rows(weight, 8)
    steps = matrix.scales.float()[:, None]
    # The largest weight may lie a rounding of the fp16 scale beyond the last code.
    assert ((matrix.dequantize() - weight).abs() <= 0.5 * steps + 127 * steps * 2**-11).all()
    assert not matrix.codes[3].any()
    assert matrix.codes.abs().max() == 127


def test_gptq_loses_less_than_rounding_in_every_matrix(small_model: GPT, hessians: dict[str, Tensor]) -> None:
    model = quantized(small_model, hessians, QuantConfig(matrix_bits=4))
    for name, weight in small_model.named_parameters():
        if parameter_role(name) == "matrix":
            h, rounded = hessians[name], round_rows(weight.detach(), 4)
            difference = weight.detach() - rounded.dequantize()
            assert model.matrices[name].error < float(((difference @ h) * difference).sum()), name


def test_every_parameter_is_coded_once(small_model: GPT, hessians: dict[str, Tensor]) -> None:
    model = quantized(small_model, hessians, QuantConfig())
    assert {*model.matrices, *model.vectors} == {name for name, _ in small_model.named_parameters()}
    assert not {*model.matrices} & {*model.vectors}
    assert model.matrices["blocks.0.attn.q.weight"].codes.abs().max() <= 31


def test_coarser_steps_give_smaller_codes(small_model: GPT, hessians: dict[str, Tensor]) -> None:
    fine, coarse = (quantized(small_model, hessians, QuantConfig(), c).matrices for c in (1.0, 4.0))
    name = "blocks.1.mlp.up.weight"
    assert coarse[name].codes.abs().float().mean() < 0.4 * fine[name].codes.abs().float().mean()


def test_nan_names_the_matrix(small_model: GPT, hessians: dict[str, Tensor]) -> None:
    hessians["blocks.1.mlp.down.weight"][3, 3] = torch.nan
    with pytest.raises(NumericError, match=r"blocks\.1\.mlp\.down\.weight"):
        quantized(small_model, hessians, QuantConfig())
