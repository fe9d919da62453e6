"""Moments are those of what every matrix really read and of the gradients that really came back."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pygolf.data.loader import to_ids
from pygolf.errors import NumericError
from pygolf.model.gpt import GPT, parameter_role, place
from pygolf.progress import Reporter
from pygolf.quant.calibrate import _head_gradient, collect_hessians, collect_moments, fused_hessians
from pygolf.quant.moments import MomentCollector, Moments
from pygolf.runtime import Runtime

QUIET = Reporter(enabled=False)


class Tied(nn.Module):
    """An embedding whose table is the head as well, with one hidden layer read twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(7, 5)
        self.one, self.two = nn.Linear(5, 5), nn.Linear(5, 5)
        self.unused = nn.Linear(5, 3)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids_M: Tensor) -> Tensor:
        x = self.table(ids_M)
        return self.head(torch.relu_(self.one(x)) + self.two(x))


@pytest.fixture
def ids() -> Tensor:
    return torch.tensor([0, 1, 1, 2, 3, 3, 3, 4, 5])  # 6 never comes up


def collected(model: Tied, ids_M: Tensor, cpu: Runtime, whole_rows: bool = False) -> dict[str, Moments]:
    with MomentCollector(model, whole_rows=whole_rows) as collector:
        F.cross_entropy(model(ids_M), ids_M.roll(1), reduction="sum").backward()
    return collector.moments(len(ids_M), cpu)


def test_gradients_are_those_that_the_weights_see(ids: Tensor, cpu: Runtime) -> None:
    """One token: G (x) H is the outer product of the weight's gradient with itself, so the traces say the same."""
    model = Tied()
    F.cross_entropy(model(ids[:1]), ids[3:4]).backward()
    expected = {
        name: p.grad.square().sum() for name, p in model.named_parameters() if p.grad is not None and p.dim() > 1
    }
    with MomentCollector(model, whole_rows=True) as collector:
        F.cross_entropy(model(ids[:1]), ids[3:4]).backward()
    moments = collector.moments(1, cpu)
    for name in ("one.weight", "two.weight"):
        torch.testing.assert_close(moments[name].rows.trace() * moments[name].columns.trace(), expected[name])
    assert "unused.weight" not in moments


def test_an_input_read_twice_has_one_hessian(ids: Tensor, cpu: Runtime) -> None:
    model = Tied()
    moments = collected(model, ids, cpu)
    x = model.table(ids).detach()
    torch.testing.assert_close(moments["one.weight"].columns, x.T @ x / len(ids))
    assert moments["one.weight"].columns is moments["two.weight"].columns


def test_parameters_are_trainable_again_and_hooks_gone(ids: Tensor, cpu: Runtime) -> None:
    model = Tied()
    collected(model, ids, cpu)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_tied_table_counts_as_embedding_and_as_head(ids: Tensor, cpu: Runtime) -> None:
    tied = collected(Tied(), ids, cpu)["table.weight"]
    split = Tied()
    split.table.weight = nn.Parameter(split.table.weight.detach().clone())
    parts = collected(split, ids, cpu)
    head, table = parts["head.weight"], parts["table.weight"]

    def trace(m: Moments) -> Tensor:
        return m.columns.trace() * m.row_weights.sum()

    torch.testing.assert_close(trace(tied), trace(head) + trace(table))
    assert table.rows[6] < table.rows[0] / 4  # never looked up
    assert table.rows[6] > 0


def test_expected_loss_is_the_quadratic_form() -> None:
    torch.manual_seed(0)
    a, b, error = torch.randn(9, 4), torch.randn(9, 3), torch.randn(3, 4)
    h, g = a.T @ a / 9, b.T @ b / 9
    for rows, whole in ((g, g), (g.diagonal(), torch.diag(g.diagonal()))):
        expected = 0.5 * float(torch.trace(whole @ error @ h @ error.T))
        assert Moments(h, rows).loss(error) == pytest.approx(expected, rel=1e-5)


def test_every_matrix_of_the_model_has_moments(small_model: GPT, windows: Tensor, cpu: Runtime) -> None:
    moments = collect_moments(small_model, windows, cpu, microbatch_windows=7, whole_rows=False, seed=0, reporter=QUIET)
    matrices = {name: p for name, p in small_model.named_parameters() if parameter_role(name) != "vector"}
    assert set(moments) == set(matrices)
    for name, weight in matrices.items():
        assert (len(moments[name].rows), len(moments[name].columns)) == weight.shape
    hessians = collect_hessians(small_model, windows, cpu, microbatch_windows=24, reporter=QUIET)
    for name in hessians:
        torch.testing.assert_close(hessians[name], moments[name].columns, rtol=1e-4, atol=1e-6)
    fused = fused_hessians(small_model, [to_ids(part, cpu.device)[0] for part in windows.split(10)], cpu)
    assert set(fused) == {name for name in matrices if parameter_role(name) == "matrix"}
    for name in fused:
        torch.testing.assert_close(fused[name], moments[name].columns, rtol=1e-4, atol=1e-6)


def test_the_heads_gradient_is_autograds(small_model: GPT, windows: Tensor, cpu: Runtime) -> None:
    """The same labels are drawn here again, and autograd is asked."""
    ids_BT, _ = to_ids(windows[:2], cpu.device)
    hidden = small_model.hidden(ids_BT).detach().requires_grad_()
    with MomentCollector(small_model) as collector:
        noise = torch.empty(*ids_BT.shape, 48).exponential_(generator=torch.Generator().manual_seed(3))
        found = _head_gradient(small_model, hidden.detach(), collector, noise)
        labels = (small_model.logits(hidden).softmax(-1) / noise).argmax(-1)
    small_model.nll(hidden, labels).sum().backward()
    torch.testing.assert_close(found, hidden.grad, rtol=1e-4, atol=1e-6)


def test_a_weight_that_is_not_finite_is_named(small_model: GPT, windows: Tensor, cpu: Runtime) -> None:
    with torch.no_grad():
        small_model.blocks[1].mlp.up.weight[0, 0] = torch.nan
    with pytest.raises(NumericError, match=r"weight: the second moments"):
        collect_moments(small_model, windows, cpu, microbatch_windows=24, whole_rows=False, seed=0, reporter=QUIET)


@pytest.mark.gpu
def test_cuda_gathers_what_the_cpu_does(small_model: GPT, windows: Tensor, cpu: Runtime) -> None:
    """bf16 activations against fp32: the traces agree to a few percent, and every way of gathering to its rounding."""
    cuda = Runtime(torch.device("cuda"))
    options = {"microbatch_windows": 8, "whole_rows": False, "seed": 0, "reporter": QUIET}
    expected = collect_moments(small_model, windows, cpu, **options)
    place(small_model, cuda)
    found = collect_moments(small_model, windows, cuda, **options)
    hessians = collect_hessians(small_model, windows, cuda, microbatch_windows=8, reporter=QUIET)
    for name, m in expected.items():
        assert float(found[name].columns.trace()) == pytest.approx(float(m.columns.trace()), rel=0.05), name
        if name in hessians:
            assert float(hessians[name].trace()) == pytest.approx(float(m.columns.trace()), rel=0.05), name


def test_microbatches_change_no_label(small_model: GPT, windows: Tensor, cpu: Runtime) -> None:
    """Labels belong to windows, however they are split into batches and ranks."""
    found = [
        collect_moments(small_model, windows, cpu, microbatch_windows=n, whole_rows=False, seed=1, reporter=QUIET)
        for n in (5, 24)
    ]
    for name, moments in found[0].items():
        torch.testing.assert_close(moments.rows, found[1][name].rows, rtol=1e-4, atol=1e-9)
        torch.testing.assert_close(moments.columns, found[1][name].columns, rtol=1e-4, atol=1e-7)
