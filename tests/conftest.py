"""Shared fixtures: a small data folder, a small model, and the rule for GPU tests."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from random_models import random_model

from pygolf.config import DataConfig, ModelConfig, RunConfig
from pygolf.model.gpt import GPT
from pygolf.pipeline import Run, create_run
from pygolf.presets import tiny
from pygolf.progress import Reporter
from pygolf.runtime import Runtime

# Programs that tests start import the installed pygolf, not the sources of the folder that they start in.
os.environ["PYTHONSAFEPATH"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
# One thread: small tensors gain nothing from more, and a busy machine loses much.
torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if torch.cuda.is_available() or os.environ.get("PYGOLF_REQUIRE_GPU") == "1":
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def cpu() -> Runtime:
    return Runtime(torch.device("cpu"))


@pytest.fixture
def small_config() -> ModelConfig:
    return ModelConfig(
        vocab_size=48,
        layers=4,
        width=32,
        heads=4,
        kv_heads=2,
        mlp_width=64,
        sequence_length=16,
        rotary_dims=4,
        bigram_rows=40,
        bigram_width=8,
        value_embedding_width=8,
        value_embedding_layers=(2, 3),
    )


@pytest.fixture
def small_model(small_config: ModelConfig) -> GPT:
    """A model whose every parameter takes part (fresh ones have zero output matrices)."""
    return random_model(small_config, 0.1, 0)


@pytest.fixture
def windows() -> torch.Tensor:
    """Token windows with structure to learn, uint16 [24, 17]: each id is followed by its double or by itself plus 1."""
    rng = np.random.default_rng(0)
    rows = np.empty((24, 17), dtype=np.uint16)
    rows[:, 0] = rng.integers(0, 48, 24)
    for i in range(1, 17):
        coin = rng.random(24) < 0.5
        rows[:, i] = np.where(coin, rows[:, i - 1] * 2, rows[:, i - 1] + 1) % 48
    return torch.from_numpy(rows)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of real text: two train shards, one val shard, the bundled tokenizer."""
    from pygolf.data.bundled import BUNDLED, bundled_texts
    from pygolf.data.dataset import TOKENIZER_NAME
    from pygolf.data.shards import write_shard
    from pygolf.data.tokenizer import Tokenizer

    folder = tmp_path_factory.mktemp("data")
    tokenizer = Tokenizer(BUNDLED / TOKENIZER_NAME)
    tokens = tokenizer.encode_documents(bundled_texts("val"))
    (folder / TOKENIZER_NAME).write_bytes((BUNDLED / TOKENIZER_NAME).read_bytes())
    write_shard(folder / "train_000000.bin", tokens[:20_000])
    write_shard(folder / "train_000001.bin", tokens[20_000:36_000])
    write_shard(folder / "val_000000.bin", tokens[40_000:44_000])
    return folder


def tiny_config(data: Path, runs: Path) -> RunConfig:
    return dataclasses.replace(tiny(), data=DataConfig(path=data, holdout_windows=24, val_tokens=1_025), runs=runs)


@pytest.fixture(scope="session")
def finished(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tiny run through all stages. Tests leave its folder as it is."""
    config = tiny_config(data_folder, tmp_path_factory.mktemp("runs"))
    with Reporter(config.folder / "metrics.jsonl") as reporter:
        run = Run(config, Runtime(torch.device("cpu")), reporter)
        create_run(run)
        run.run()
    return run
