"""Calibration, GPTQ, size fitting and packing."""
