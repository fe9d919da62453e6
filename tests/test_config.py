"""Configuration: what is written is what is read, and what is wrong is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from pygolf.config import (
    AdaptConfig,
    DataConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
)
from pygolf.config_file import dump_toml, from_sections, load_toml
from pygolf.errors import ConfigError
from pygolf.presets import PRESETS


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_toml_goes_round(name: str, tmp_path: Path) -> None:
    config = PRESETS[name]()
    path = tmp_path / "config.toml"
    path.write_text(dump_toml(config))
    assert load_toml(path) == config


def test_unknown_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown setting train\.max_second;.*max_seconds"):
        from_sections({"train": {"max_second": 3}})
    with pytest.raises(ConfigError, match="unknown setting trian"):
        from_sections({"trian": {}})


def test_broken_or_missing_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not found"):
        load_toml(tmp_path / "config.toml")
    (tmp_path / "config.toml").write_text("a = [")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_toml(tmp_path / "config.toml")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelConfig(width=100, heads=8), "width 100 is not a multiple of heads 8"),
        (lambda: ModelConfig(heads=8, kv_heads=3), "heads 8 is not a multiple of kv_heads 3"),
        (lambda: ModelConfig(value_embedding_layers=(11,)), "beyond layers 11"),
        (lambda: TrainConfig(max_seconds=0), "would never end"),
        (lambda: AdaptConfig(val_fraction=1.0), "val_fraction is 1.0"),
        (lambda: RunConfig(data=DataConfig(holdout_windows=64)), "holdout_windows is 64; .* need 257 or more"),
        (lambda: RunConfig(train=TrainConfig(batch_tokens=5000)), "not a multiple of model.sequence_length 2048"),
    ],
)
def test_what_does_not_fit_is_an_error(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]
