"""The fused steps as Triton kernels: the functions of `plain`, under the same names."""

from pygolf.model.kernels.fused_heads import (
    add_values,
    remove_own_value,
    remove_own_value_backward,
    split_heads,
    split_heads_backward,
)
from pygolf.model.kernels.fused_mlp import mlp_activated, mlp_down_backward, mlp_up, product
from pygolf.model.kernels.fused_norm import mix_norm, mix_norm_backward, norm, norm_backward
from pygolf.model.kernels.fused_tables import (
    add_rows,
    embed,
    embed_backward,
    softcap_nll,
    softcap_nll_backward,
    sort_index,
)

__all__ = [
    "add_rows",
    "add_values",
    "embed",
    "embed_backward",
    "mix_norm",
    "mix_norm_backward",
    "mlp_activated",
    "mlp_down_backward",
    "mlp_up",
    "norm",
    "norm_backward",
    "product",
    "remove_own_value",
    "remove_own_value_backward",
    "softcap_nll",
    "softcap_nll_backward",
    "sort_index",
    "split_heads",
    "split_heads_backward",
]
