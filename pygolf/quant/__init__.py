"""Calibration, the rate-distortion quantizer, GPTQ, size fitting and packing."""
