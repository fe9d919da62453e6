"""pygolf: train, adapt, quantize, pack and honestly score small language models under time and byte budgets."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`quantize` and `load_quantized` of pygolf.quant.modules, imported when first asked for: they need torch."""
    if name in ("quantize", "load_quantized"):
        return getattr(import_module("pygolf.quant.modules"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
