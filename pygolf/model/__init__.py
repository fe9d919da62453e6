"""The one model class of training, adaptation, calibration, scoring and generation."""
