"""Whole configurations, one function each: `pygolf run PRESET --train.max-seconds 300` starts from one of them."""

from __future__ import annotations

import dataclasses
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
    return RunConfig(name="record", train=TrainConfig(reserve_seconds=10))


def record_val() -> RunConfig:
    """The record's transductive mode: adapted on the very tokens that are scored, so its score is `seen`."""
    return dataclasses.replace(record(), name="record-val", adapt=AdaptConfig(source="val", epochs=10, lr=5e-4))


def demo() -> RunConfig:
    """A small model on the bundled corpus, trained and packed in minutes on two CPU cores."""
    return RunConfig(
        name="demo",
        data=DataConfig(path=Path("runs/demo-data"), holdout_windows=160),
        model=ModelConfig(
            layers=5,
            width=128,
            heads=4,
            kv_heads=2,
            mlp_width=384,
            sequence_length=256,
            bigram_width=32,
            value_embedding_width=32,
            value_embedding_layers=(3, 4),
            rotary_base=10_000.0,
        ),
        train=TrainConfig(
            max_seconds=150,
            batch_tokens=4_096,
            microbatch_tokens=4_096,
            warmdown_steps=200,
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


PRESETS: dict[str, Callable[[], RunConfig]] = {"record": record, "record-val": record_val, "demo": demo, "tiny": tiny}
