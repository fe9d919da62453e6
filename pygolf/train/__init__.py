"""Training under a clock, averaging, checkpoints and adaptation."""
