"""Whole configurations, one function each; the command line starts from them: `pygolf run PRESET --train.max-seconds 300`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pygolf.config import (
    AdaptConfig,
    DataConfig,
    ModelConfig,
    QuantConfig,
    RunConfig,
    ScoreConfig,
    TrainConfig,
)


def record() -> RunConfig:
    """The 27 M parameter model of the 10-minute, 16 MB record: 8 GPUs, 786,432 tokens a step."""
    return RunConfig(name="record")


def demo() -> RunConfig:
    """A small model on the bundled corpus, trained and packed in minutes on two CPU cores."""
    return RunConfig(
        name="demo",
        data=DataConfig(path=Path("runs/demo-data"), holdout_windows=160, val_tokens=32_769),
        model=ModelConfig(
            layers=6,
            width=192,
            heads=6,
            kv_heads=3,
            mlp_width=576,
            sequence_length=256,
            bigram_width=64,
            value_embedding_width=64,
            value_embedding_layers=(4, 5),
            rotary_base=10_000.0,
        ),
        train=TrainConfig(
            max_seconds=120,
            batch_tokens=8_192,
            microbatch_tokens=8_192,
            warmdown_steps=150,
            momentum_ramp_steps=150,
            checkpoint_seconds=30,
        ),
        adapt=AdaptConfig(epochs=2, windows_per_step=16),
        quant=QuantConfig(calibration_windows=64),
        score=ScoreConfig(stride=64, batch_tokens=16_384),
    )


def tiny() -> RunConfig:
    """A toy model that trains in seconds: to see the pipeline work, and for tests."""
    return RunConfig(
        name="tiny",
        data=DataConfig(path=Path("runs/demo-data"), holdout_windows=24, val_tokens=2_049),
        model=ModelConfig(
            layers=3,
            width=32,
            heads=2,
            kv_heads=1,
            mlp_width=64,
            sequence_length=64,
            rotary_dims=8,
            bigram_rows=128,
            bigram_width=16,
            value_embedding_width=16,
            value_embedding_layers=(2,),
        ),
        train=TrainConfig(
            max_seconds=0,
            max_steps=20,
            batch_tokens=512,
            microbatch_tokens=256,
            warmdown_steps=10,
            momentum_ramp_steps=10,
            checkpoint_seconds=0,
        ),
        adapt=AdaptConfig(epochs=2, windows_per_step=4),
        quant=QuantConfig(calibration_windows=8, zstd_level=3),
        score=ScoreConfig(stride=16, batch_tokens=4_096),
    )


PRESETS: dict[str, Callable[[], RunConfig]] = {"record": record, "demo": demo, "tiny": tiny}
