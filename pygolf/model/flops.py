"""Arithmetic of the model against what the device can do: the share of the peak (MFU, PaLM, arXiv 2204.02311)."""

from __future__ import annotations

import torch

from pygolf.config import ModelConfig

# Dense bf16 TFLOP/s by the vendor's data sheets, for parts whose name holds the key.
PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "GH200": 989.0, "A100": 312.0, "B200": 2250.0}


def training_flops(config: ModelConfig) -> float:
    """Floating-point operations of forward and backward for one token: 3 times the forward's matrix products.

    Attention counts the causal half. Recomputation does not count.
    """
    c = config
    kv_width = c.kv_heads * c.head_width
    block = 2 * c.width * (c.width + kv_width) + 2 * c.width * c.mlp_width  # q, out, k, v; up, down
    small = c.bigram_width * c.width + c.value_embedding_width * kv_width + c.width * c.vocab_size
    attention = c.layers * c.sequence_length * c.width  # q kᵀ and p v, each 2 · T/2 · D
    return 3.0 * (2.0 * (c.layers * block + small) + 2.0 * attention)


def peak_flops(device: torch.device) -> float:
    """Dense bf16 operations a second of a CUDA device; 0 for devices that are not in the table."""
    if device.type != "cuda":
        return 0.0
    name = torch.cuda.get_device_name(device)
    return next((1e12 * peak for part, peak in PEAK_TFLOPS.items() if part in name), 0.0)
