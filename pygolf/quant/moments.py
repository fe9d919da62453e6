"""Second moments of what goes into and comes out of every weight matrix, gathered by hooks in a forward and backward.

    columns: H = E[x xᵀ] of the inputs x          rows: G = E[g gᵀ], or its diagonal, of g = d loss / d output

Rounding errors E of a weight matrix then raise the loss by about ½ trace(G E H Eᵀ).
An embedding table is a matrix whose inputs are one-hot: a row's share of G is how often, and with how large gradients,
its id came up, and the gradients' own second moment stands in the place of H.
Shapes: M tokens of a batch, R rows (outputs), C columns (inputs).
Sources: GPTQ, arXiv 2210.17323 (H); YAQA, arXiv 2505.22988 (G beside H).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pygolf.errors import NumericError
from pygolf.runtime import Runtime

UNSEEN = 0.5
"""Rows of a table that no token looked up count as if half a token had, with the mean gradient."""
MOST_WHOLE_ROWS = 8192
"""Matrices with more outputs, such as a head over a large vocabulary, keep the diagonal of G alone."""


@dataclass(frozen=True)
class Moments:
    """What the error of a matrix [R, C] costs; fp32, on the device that gathered them."""

    columns: Tensor
    """[C, C]"""
    rows: Tensor
    """[R], or [R, R] where the whole matrix was asked for."""

    @property
    def row_weights(self) -> Tensor:
        """[R]: the diagonal of the rows' moment."""
        return self.rows if self.rows.dim() == 1 else self.rows.diagonal()

    def loss(self, error_RC: Tensor) -> float:
        """½ trace(G E H Eᵀ): the expected rise of the loss, in its own unit."""
        moved_RC = error_RC @ self.columns
        weighted_RC = self.rows @ moved_RC if self.rows.dim() == 2 else self.rows[:, None] * moved_RC
        return 0.5 * float((weighted_RC * error_RC).sum(dtype=torch.float64))


def add_second_moment(total_CC: Tensor, x_MC: Tensor) -> None:
    """total += xᵀ x. bf16 and fp16 products on CUDA add up in fp32."""
    if x_MC.is_cuda and x_MC.dtype in (torch.bfloat16, torch.float16):
        total_CC.add_(torch.mm(x_MC.mT, x_MC, out_dtype=torch.float32))
    else:
        x_MC = x_MC.float()
        total_CC.addmm_(x_MC.mT, x_MC)


@dataclass
class _Lookups:
    """Sums over the look-ups of an embedding table [R, C]."""

    columns: Tensor
    """[C, C]: g gᵀ."""
    rows: Tensor
    """[R]: |g|² of the row's look-ups."""
    count: int = 0


class MomentCollector:
    """Gathers the moments of all nn.Linear and nn.Embedding modules while it is entered.

    Weights are named as in `module.named_parameters()`; a module whose forward does not run leaves none.
    With `gradients`, outputs ask for their gradient and the module's parameters do not, so that a backward pass costs
    two thirds of a usual one; without, only `columns` are gathered.
    """

    def __init__(self, module: nn.Module, *, gradients: bool = True, whole_rows: bool = False) -> None:
        self._module, self._gradients, self._whole_rows = module, gradients, whole_rows
        self._names = {id(p): name for name, p in module.named_parameters()}
        self._columns: dict[str, Tensor] = {}
        self._read: dict[str, int] = {}
        self._rows: dict[str, Tensor] = {}
        self._lookups: dict[str, _Lookups] = {}
        self._shared: dict[str, str] = {}
        self._last: tuple[Tensor | None, str] = (None, "")
        self._handles: list[RemovableHandle] = []
        self._trainable: list[nn.Parameter] = []

    def __enter__(self) -> MomentCollector:
        for child in self._module.modules():
            if isinstance(child, nn.Linear) and (name := self._names.get(id(child.weight))):
                self._handles.append(child.register_forward_pre_hook(self._input_hook(name)))
                if self._gradients:
                    self._handles.append(child.register_forward_hook(self._output_hook(name)))
            elif isinstance(child, nn.Embedding) and self._gradients and (name := self._names.get(id(child.weight))):
                self._handles.append(child.register_forward_hook(self._lookup_hook(name, child.num_embeddings)))
        if self._gradients:
            self._trainable = [p for p in self._module.parameters() if p.requires_grad]
            for parameter in self._trainable:
                parameter.requires_grad_(False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        for parameter in self._trainable:
            parameter.requires_grad_(True)
        self._last = (None, "")

    def add_inputs(self, name: str, x: Tensor) -> None:
        """Adds inputs [..., C] of the matrix `name`."""
        x_MC = x.detach().flatten(0, -2)
        add_second_moment(self._total(self._columns, name, (x_MC.size(1),) * 2, x.device), x_MC)
        self._read[name] = self._read.get(name, 0) + len(x_MC)

    def add_gradients(self, name: str, g: Tensor) -> None:
        """Adds gradients [..., R] of the loss by the outputs of the matrix `name`."""
        g_MR = g.detach().flatten(0, -2)
        rows = g_MR.size(1)
        if self._whole_rows and rows <= MOST_WHOLE_ROWS:
            add_second_moment(self._total(self._rows, name, (rows, rows), g.device), g_MR)
        else:
            self._total(self._rows, name, (rows,), g.device).add_(g_MR.float().square().sum(dim=0))

    def add_lookups(self, name: str, rows: int, ids: Tensor, g: Tensor) -> None:
        """Adds the look-ups ids [...] of the table `name` and the gradients [..., C] by what they gave."""
        g_MC = g.detach().flatten(0, -2)
        if name not in self._lookups:
            columns = g_MC.size(1)
            self._lookups[name] = _Lookups(
                torch.zeros(columns, columns, device=g.device), torch.zeros(rows, device=g.device)
            )
        table = self._lookups[name]
        add_second_moment(table.columns, g_MC)
        table.rows.index_add_(0, ids.flatten(), g_MC.float().square().sum(dim=1))
        table.count += len(g_MC)

    @property
    def inputs(self) -> int:
        """Inputs that the busiest matrix has read on this rank: tokens, in a language model."""
        return max(self._read.values(), default=0)

    def columns(self, runtime: Runtime) -> dict[str, Tensor]:
        """H of every matrix that was read, over the inputs of all ranks. Matrices that read the same share it."""
        means = {}
        for name, total in sorted(self._columns.items()):
            count = torch.tensor(float(self._read[name]), device=total.device)
            means[name] = runtime.sum(total) / runtime.sum(count).clamp_min(1)
        return means | {name: means[owner] for name, owner in self._shared.items()}

    def moments(self, examples: int, runtime: Runtime) -> dict[str, Moments]:
        """The moments of every matrix and table that took part; `examples` losses of all ranks were added up.

        Raises NumericError, naming the matrix, for moments that are not finite.
        """
        columns = self.columns(runtime)
        found = {name: Moments(columns[name], runtime.sum(g) / examples) for name, g in sorted(self._rows.items())}
        for name, table in sorted(self._lookups.items()):
            looked_up = _table_moments(table, examples, runtime)
            found[name] = _joined(found[name], looked_up) if name in found else looked_up
        for name, moments in found.items():
            if not (moments.columns.isfinite().all() and moments.rows.isfinite().all()):
                raise NumericError(
                    f"{name}: the second moments of its inputs or gradients are not finite; do the model's weights "
                    f"hold NaN or infinity?"
                )
        return found

    @staticmethod
    def _total(totals: dict[str, Tensor], name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
        if name not in totals:
            totals[name] = torch.zeros(shape, device=device)
        return totals[name]

    def _input_hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            last, owner = self._last
            if inputs[0] is last:
                self._shared[name] = owner
            else:
                self._last = (inputs[0], name)
                self.add_inputs(name, inputs[0])

        return hook

    def _output_hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return _watched(output, lambda g: self.add_gradients(name, g))

        return hook

    def _lookup_hook(self, name: str, rows: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return _watched(output, lambda g: self.add_lookups(name, rows, inputs[0], g))

        return hook


def _watched(output: Tensor, seen: Callable[[Tensor], None]) -> Tensor:
    """The output, with `seen` called on its gradient. Where no parameter is trainable the graph begins here."""
    if output.requires_grad:
        output.register_hook(seen)
        return output
    output.requires_grad_().register_hook(seen)
    return output.clone()  # the network may change it in place, which a leaf of the graph does not allow


def _table_moments(table: _Lookups, examples: int, runtime: Runtime) -> Moments:
    """Look-ups as a matrix: rows carry all of the gradients' size, columns only their directions, with mean trace 1."""
    rows, columns = runtime.sum(table.rows), runtime.sum(table.columns)
    count = float(runtime.sum(torch.tensor(float(table.count), device=rows.device)))
    energy = rows.sum()
    rows = (rows + UNSEEN * energy / max(count, 1.0)) / examples
    return Moments(columns / energy.clamp_min(torch.finfo(torch.float32).tiny), rows)


def _joined(one: Moments, other: Moments) -> Moments:
    """One Kronecker product in place of two: columns by the share of each, rows so that their traces add up.

    For a table that is both embedding and head.
    """
    trace = [m.columns.diagonal().sum() for m in (one, other)]
    weight = [m.row_weights.sum() for m in (one, other)]
    columns = weight[0] * one.columns + weight[1] * other.columns
    rows = (one.row_weights * trace[0] + other.row_weights * trace[1]) / columns.diagonal().sum()
    return Moments(columns, rows)
