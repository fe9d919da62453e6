"""pygolf: train, adapt, quantize, pack and honestly score small language models under time and byte budgets."""

__version__ = "0.1.0"
