"""The configuration: frozen dataclasses, checked when built; their field comments are the command line's help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from pygolf.errors import ConfigError
from pygolf.live import LiveKind

BUDGET_BYTES = 16_000_000


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where tokens come from."""

    path: Path = Path("data")
    """Folder with *train_*.bin and *val_*.bin token shards and a SentencePiece *.model."""
    tokenizer: Path | None = None
    """SentencePiece model; default: the only *.model in the data folder."""
    val_tokens: int = 0
    """Validation tokens to score, from the start of the split; 0 for all."""
    holdout_windows: int = 1216
    """Training windows set aside at the end of the training shards, so that adaptation and calibration read
    tokens that training never saw."""
    mixing_ranks: int = 8
    """W of the sampler's shard mix. A constant, so that the plan does not depend on the number of ranks."""

    def __post_init__(self) -> None:
        _require(self.val_tokens >= 0, f"data.val_tokens is {self.val_tokens}; use 0 (all) or a count")
        _require(self.holdout_windows >= 1, f"data.holdout_windows is {self.holdout_windows}; use 1 or more")
        _require(self.mixing_ranks >= 1, f"data.mixing_ranks is {self.mixing_ranks}; use 1 or more")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of the model (RECIPE 3)."""

    vocab_size: int = 1024
    """V: pieces of the tokenizer."""
    layers: int = 11
    """L: blocks; the first half feeds skip connections to the second."""
    width: int = 512
    """D: width of the residual stream."""
    heads: int = 8
    """H: query heads; width / heads is the width of a head."""
    kv_heads: int = 4
    """K: key and value heads, each shared by heads / kv_heads queries."""
    mlp_width: int = 1536
    """Hidden width of the MLP."""
    sequence_length: int = 2048
    """T: tokens of a window, in training and in scoring."""
    rotary_dims: int = 16
    """Dimensions of a head that carry position."""
    rotary_base: float = 22_082.0
    """Base of the rotary frequencies, the same for every length of input."""
    q_gain: float = 5.0
    """Initial gain of every query head."""
    bigram_rows: int = 2048
    """R: rows of the hashed bigram table."""
    bigram_width: int = 128
    """Width of the bigram table before its projection."""
    value_embedding_width: int = 128
    """Width of the value-embedding table before its projection."""
    value_embedding_layers: tuple[int, ...] = (9, 10)
    """Blocks whose values get the value embedding."""
    logit_cap: float = 30.0
    """Logits are cap * tanh(z / cap)."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "layers", "width", "heads", "kv_heads", "mlp_width", "sequence_length"):
            _require(getattr(self, name) >= 1, f"model.{name} is {getattr(self, name)}; use 1 or more")
        _require(self.vocab_size <= 65_536, f"model.vocab_size is {self.vocab_size}; shards hold 16-bit ids")
        _require(self.width % self.heads == 0, f"model.width {self.width} is not a multiple of heads {self.heads}")
        _require(
            self.heads % self.kv_heads == 0,
            f"model.heads {self.heads} is not a multiple of kv_heads {self.kv_heads}",
        )
        _require(
            self.rotary_dims % 2 == 0 and self.rotary_dims <= self.head_width,
            f"model.rotary_dims is {self.rotary_dims}; use an even number up to the head width {self.head_width}",
        )
        _require(self.bigram_rows >= 2, f"model.bigram_rows is {self.bigram_rows}; use 2 or more")
        _require(
            all(0 <= i < self.layers for i in self.value_embedding_layers),
            f"model.value_embedding_layers {self.value_embedding_layers} names blocks beyond layers {self.layers}",
        )

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def skips(self) -> int:
        """Skip connections of the U-Net; an odd number of blocks leaves the last one without."""
        return self.layers // 2


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training under a wall-clock budget (RECIPE 4)."""

    max_seconds: float = 600.0
    """Budget of the training clock in seconds; 0 for no clock (then max_steps rules)."""
    reserve_seconds: float = 0.0
    """Part of max_seconds kept back for adaptation and calibration, which read training data too."""
    max_steps: int = 0
    """Stop after this many steps; 0 for no limit."""
    batch_tokens: int = 786_432
    """Tokens of a step over all ranks."""
    microbatch_tokens: int = 98_304
    """Most tokens of one forward and backward on one rank."""
    warmdown_steps: int = 4000
    """The learning rate falls linearly to 0 over the last this many steps (at the current speed)."""
    compile_warmup_steps: int = 3
    """Steps before the clock starts that compile and choose kernels; they leave no trace. On the CPU: none."""
    matrix_lr: float = 0.025
    """Muon's learning rate for the block matrices."""
    embedding_lr: float = 0.035
    """AdamW's learning rate for token, bigram and value-embedding tables."""
    scalar_lr: float = 0.025
    """AdamW's learning rate for vectors, gains and small projections."""
    weight_decay: float = 0.04
    """Decoupled weight decay of Muon and AdamW."""
    momentum_start: float = 0.92
    """Muon's Nesterov momentum at step 0."""
    momentum_end: float = 0.99
    """Muon's Nesterov momentum after momentum_ramp_steps."""
    momentum_ramp_steps: int = 1500
    """Steps of the linear momentum ramp."""
    clip_norm: float = 0.3
    """Gradients are clipped to this global norm after reduction; 0 for no clipping."""
    ema_decay: float = 0.997
    """Largest decay of the weight average; early steps use t / (t + 9), so short runs average sensibly."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints (their writing counts on the clock); 0 for one at every step."""

    def __post_init__(self) -> None:
        _require(
            self.max_seconds > 0 or self.max_steps > 0,
            "train.max_seconds and train.max_steps are both 0: training would never end. Set one of them",
        )
        _require(
            self.max_seconds == 0 or 0 <= self.reserve_seconds < self.max_seconds,
            f"train.reserve_seconds {self.reserve_seconds} must lie in [0, max_seconds {self.max_seconds})",
        )
        _require(self.microbatch_tokens >= 1, f"train.microbatch_tokens is {self.microbatch_tokens}; use 1 or more")
        _require(self.warmdown_steps >= 0, f"train.warmdown_steps is {self.warmdown_steps}; use 0 or more")
        _require(0 <= self.ema_decay < 1, f"train.ema_decay is {self.ema_decay}; use a value in [0, 1)")


AdaptSource = Literal["train", "val", "val-prefix", "none"]


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """Discriminative test-time training before quantization (RECIPE 5)."""

    source: AdaptSource = "train"
    """Tokens it may see. train: held-out training windows; val: the very tokens that are scored (the score is then
    `seen`); val-prefix: the first val_fraction, the rest is scored; none: no adaptation."""
    val_fraction: float = 0.1
    """Fraction of the validation tokens that val-prefix adapts on."""
    epochs: int = 3
    """Passes over the adaptation windows. The record's transductive mode takes 10."""
    lr: float = 5e-5
    """Base learning rate; embeddings get it whole. The record's transductive mode takes 5e-4, which makes other text
    score worse (docs/results.md)."""
    first_block_scale: float = 0.3
    """Factor of block 0's learning rate; it rises linearly to 1 at the last block. 1 gives flat rates."""
    frozen_blocks: int = 0
    """The first this many blocks are not adapted."""
    final_lr_scale: float = 0.1
    """Each group's learning rate ends at this part of its own base (cosine over epochs)."""
    windows_per_step: int = 32
    """Windows of T tokens of a step over all ranks."""
    clip_norm: float = 1.0
    """Gradients are clipped to this global norm after reduction."""

    def __post_init__(self) -> None:
        _require(0 < self.val_fraction < 1, f"adapt.val_fraction is {self.val_fraction}; use a value in (0, 1)")
        _require(self.epochs >= 1, f"adapt.epochs is {self.epochs}; use 1 or more, or adapt.source none")
        _require(
            0 <= self.first_block_scale <= 1,
            f"adapt.first_block_scale is {self.first_block_scale}; use 0 to 1",
        )
        _require(self.frozen_blocks >= 0, f"adapt.frozen_blocks is {self.frozen_blocks}; use 0 or more")
        _require(self.windows_per_step >= 1, f"adapt.windows_per_step is {self.windows_per_step}; use 1 or more")


@dataclass(frozen=True, kw_only=True)
class QuantConfig:
    """Calibration, quantization and packing (RECIPE 6, 6b and 7)."""

    method: Literal["rd", "record"] = "rd"
    """rd: one step for the whole model (docs/quantizer.md); record: the record's int6 GPTQ, a clip chosen per row."""
    states: Literal[1, 4, 8] = 8
    """rd: states of the trellis that codes run through; 1 for none. 8 save 0.18 bit a weight at equal loss."""
    two_sided: bool = True
    """rd: rounding errors are made up for along the rows of a matrix too, not only along its columns."""
    calibration: Literal["train", "selfgen"] = "train"
    """Tokens behind the Hessians: held-out training windows, or text sampled from the model itself."""
    calibration_windows: int = 256
    """Windows of T tokens for calibration."""
    selfgen_temperature: float = 0.8
    """Temperature of self-generated calibration text."""
    matrix_bits: int = 6
    """record: bits of a code of the block matrices, 2 to 8."""
    table_bits: int = 8
    """record: bits of a code of embedding tables and their projections, 2 to 8."""
    damping: float = 0.005
    """record: added once to the Hessian's diagonal, as a part of its mean."""
    clip_quantiles: tuple[float, ...] = (0.999, 0.9995, 0.9999, 0.99999, 1.0)
    """record: candidate clips of a row, quantiles of its magnitudes."""
    clip_stds: tuple[float, ...] = (12.85,)
    """record: candidate clips of a row, multiples of its standard deviation (SDClip)."""
    budget_bytes: int = BUDGET_BYTES
    """Most bytes of artifact and code together."""
    codec: Literal["entropy", "bytes-zstd", "bitpack"] = "entropy"
    """record: codec of the codes: the adaptive entropy coder, one byte a code with zstd, or plain bit packing."""
    zstd_level: int = 22
    """Compression level of sections coded with zstd."""

    def __post_init__(self) -> None:
        for name in ("matrix_bits", "table_bits"):
            _require(2 <= getattr(self, name) <= 8, f"quant.{name} is {getattr(self, name)}; use 2 to 8")
        _require(
            bool(self.clip_quantiles or self.clip_stds),
            "quant.clip_quantiles and quant.clip_stds are both empty; give one clip or more",
        )
        _require(all(0 < q <= 1 for q in self.clip_quantiles), "quant.clip_quantiles must lie in (0, 1]")
        _require(all(k > 0 for k in self.clip_stds), "quant.clip_stds must be positive")
        _require(self.calibration_windows >= 1, "quant.calibration_windows must be 1 or more")
        _require(self.damping > 0, f"quant.damping is {self.damping}; use a positive number")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Sliding-window scoring (RECIPE 8)."""

    stride: int = 64
    """Tokens by which the window moves; each token is scored once, with at least T - stride tokens of context."""
    batch_tokens: int = 131_072
    """Most tokens of one forward pass on one rank."""
    adapt: Literal["none", "score-first"] = "none"
    """score-first: also score the text in chunks, training on each chunk once it has been scored; that score is
    reported as adaptive, beside the one of the fixed weights."""
    chunk_tokens: int = 32_768
    """Tokens of a chunk of score-first adaptation."""
    adapt_epochs: int = 3
    """Passes over each chunk, one step each."""
    adapt_lr: float = 0.005
    """Learning rate of SGD at the first chunk; it falls to 0 over the chunks (cosine)."""
    adapt_momentum: float = 0.9
    """Momentum of SGD, kept from chunk to chunk."""
    adapt_clip_norm: float = 1.0
    """Gradients are clipped to this global norm."""
    adapt_first_block_scale: float = 1.0
    """Factor of block 0's learning rate; it rises linearly to 1 at the last block. 1 gives flat rates."""

    def __post_init__(self) -> None:
        _require(self.stride >= 1, f"score.stride is {self.stride}; use 1 or more")
        _require(self.chunk_tokens >= 1, f"score.chunk_tokens is {self.chunk_tokens}; use 1 or more")
        _require(self.adapt_epochs >= 1, f"score.adapt_epochs is {self.adapt_epochs}; use 1 or more")
        _require(
            0 <= self.adapt_first_block_scale <= 1,
            f"score.adapt_first_block_scale is {self.adapt_first_block_scale}; use 0 to 1",
        )
        _require(self.batch_tokens >= 1, f"score.batch_tokens is {self.batch_tokens}; use 1 or more")


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Where and how it runs."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes CUDA where there is one."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto compiles on CUDA only."""
    threads: int = 0
    """CPU threads of torch and of the C++ core; 0 for all."""
    profile: Annotated[bool, arg(name="profile", prefix_name=False)] = False
    """Writes a trace of ten training steps to trace.json in the run folder; it opens in ui.perfetto.dev."""
    live: Annotated[LiveKind, arg(name="live", prefix_name=False)] = "off"
    """Shows the metrics while they are made: TensorBoard (logs in the run folder), or Weights & Biases. Needs
    pygolf[tensorboard] or pygolf[wandb]."""
    attention: Literal["auto", "sdpa", "cudnn", "flash"] = "auto"
    """auto: flash where it is installed and runs, else sdpa. sdpa: the best that torch ships (cuDNN, flash-2).
    cudnn: cuDNN or an error. flash: flash-attn-4 for whole windows, from Hopper on, which pygolf[flash] installs."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole run: every setting of every stage."""

    name: str = "run"
    """Name of the run's folder under --runs."""
    runs: Path = Path("runs")
    """Folder of all runs."""
    seed: int = 1337
    """Seed of weights, data order and sampling."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        t, batch = self.model.sequence_length, self.train.batch_tokens
        _require(
            batch >= t and batch % t == 0,
            f"train.batch_tokens {batch} is not a multiple of model.sequence_length {t}",
        )
        _require(
            self.train.microbatch_tokens >= t,
            f"train.microbatch_tokens {self.train.microbatch_tokens} is less than one window of {t} tokens",
        )
        _require(self.score.stride <= t, f"score.stride {self.score.stride} is more than model.sequence_length {t}")
        needed = self.quant.calibration_windows if self.quant.calibration == "train" else 0
        needed += 1 if self.adapt.source == "train" else 0
        _require(
            self.data.holdout_windows >= needed,
            f"data.holdout_windows is {self.data.holdout_windows}; calibration and adaptation need {needed} or more",
        )

    @property
    def folder(self) -> Path:
        return self.runs / self.name

    def sections(self) -> dict[str, Any]:
        """Nested plain values: what config.toml, the manifest and report.json hold."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value
