"""Sampling text from the model, one token at a time, with the key/value cache.

On CUDA every token is one replay of a recorded step (`pygolf.model.decode`); nothing waits for the host.
Positions: the model knows T = config.sequence_length of them. When a text grows past T tokens, the cache is primed
anew with its last T/2 tokens (at positions 0 .. T/2 - 1), so the context of a token is between T/2 and T tokens long.
Shapes: B sequences, P prompt tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pygolf.errors import ConfigError, DataError
from pygolf.model.decode import Decoder, supports
from pygolf.model.gpt import GPT


@dataclass(frozen=True)
class _Sampler:
    """Draws ids from logits by the noise that `shake` left, so that a recorded step draws anew at every replay."""

    temperature: float
    top_k: int | None
    banned: Tensor
    generator: torch.Generator
    noise_BV: Tensor

    def shake(self) -> None:
        # argmax of p / noise is a draw from p if the noise is exponential.
        self.noise_BV.exponential_(generator=self.generator).clamp_min_(1e-30)

    def __call__(self, logits_BV: Tensor) -> Tensor:
        logits_BV = logits_BV.index_fill(1, self.banned, float("-inf"))
        if self.temperature == 0:
            return logits_BV.argmax(dim=1, keepdim=True)
        if self.top_k is not None and self.top_k < logits_BV.size(1):
            least = logits_BV.topk(self.top_k, dim=1).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < least, float("-inf"))
        probabilities = torch.softmax(logits_BV / self.temperature, dim=1)
        return (probabilities / self.noise_BV).argmax(dim=1, keepdim=True)


class _PlainDecoder:
    """What `Decoder` does, by full calls of the model."""

    def __init__(self, model: GPT, positions: int, draw: _Sampler) -> None:
        self._model, self.positions, self._draw = model, positions, draw

    def prime(self, ids_BP: Tensor) -> Tensor:
        self._cache = self._model.new_cache(len(ids_BP), self.positions)
        return self._read(ids_BP)

    def next(self) -> Tensor:
        return self._read(self._drawn_B1)

    def _read(self, ids_BT: Tensor) -> Tensor:
        hidden_BTD = self._model.hidden(ids_BT, self._cache)
        self._drawn_B1 = self._draw(self._model.logits(hidden_BTD[:, -1:])[:, 0])
        return self._drawn_B1


def generate(
    model: GPT,
    prompt_ids: Sequence[int],
    *,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None = None,
    seed: int,
    batch: int = 1,
    banned: Collection[int] = (),
) -> Tensor:
    """Continues a prompt `batch` times: the new ids only, int64 [batch, max_new_tokens].

    Temperature 0 takes the likeliest id; else ids are drawn from softmax(logits / temperature), among the `top_k`
    likeliest if that is given. Ids in `banned` (padding, unknown, unused pieces) never come. On the CPU the seed
    settles every id. Raises DataError for an empty prompt or an id outside the vocabulary, ConfigError for settings
    out of range.
    """
    if batch < 1 or max_new_tokens < 0:
        raise ConfigError(f"batch is {batch} and max_new_tokens {max_new_tokens}; use 1 or more and 0 or more")
    _check_prompt(model, prompt_ids)
    sampler = _sampler(model, temperature, top_k, seed, batch, banned)
    prompt_BP = torch.tensor([list(prompt_ids)] * batch, device=model.tok_emb.weight.device)
    decoder = _decoder(model, sampler, prompt_BP.size(1) + max_new_tokens)
    return _continue(decoder, prompt_BP, max_new_tokens, sampler)


def sample_windows(
    model: GPT,
    count: int,
    length: int,
    *,
    temperature: float,
    seed: int,
    bos_id: int,
    batch: int = 64,
    banned: Collection[int] = (),
) -> Tensor:
    """Windows of the model's own text for calibration: BOS, then `length` sampled ids; int64 [count, length + 1].

    Source: self-generated calibration data, parameter-golf PR 1019. Raises as `generate` does.
    """
    if count < 1 or length < 1 or batch < 1:
        raise ConfigError(f"count is {count}, length {length} and batch {batch}; use 1 or more of each")
    _check_prompt(model, [bos_id])
    sampler = _sampler(model, temperature, None, seed, min(batch, count), banned)
    bos_B1 = torch.full((min(batch, count), 1), bos_id, device=model.tok_emb.weight.device)
    decoder = _decoder(model, sampler, length + 1)
    # Every batch has the same size, so that one recorded step serves them all; what is too much is dropped.
    batches = [_continue(decoder, bos_B1, length, sampler) for _ in range(0, count, len(bos_B1))]
    sampled = torch.cat(batches)[:count]
    return torch.cat([torch.full_like(sampled[:, :1], bos_id), sampled], dim=1)


def _sampler(
    model: GPT, temperature: float, top_k: int | None, seed: int, batch: int, banned: Collection[int]
) -> _Sampler:
    vocab_size = model.config.vocab_size
    if not 0 <= temperature < float("inf"):
        raise ConfigError(f"temperature is {temperature}; use 0 (the likeliest token) or a positive number")
    if top_k is not None and top_k < 1:
        raise ConfigError(f"top_k is {top_k}; use 1 or more, or leave it out for the whole vocabulary")
    outside = sorted(i for i in banned if not 0 <= i < vocab_size)
    if outside or len(set(banned)) == vocab_size:
        raise ConfigError(
            f"banned ids {outside or 'are the whole vocabulary'}; use ids below {vocab_size} and leave one or more"
        )
    device = model.tok_emb.weight.device
    generator = torch.Generator(device).manual_seed(seed)
    banned_ids = torch.tensor(sorted(banned), dtype=torch.long, device=device)
    return _Sampler(temperature, top_k, banned_ids, generator, torch.empty(batch, vocab_size, device=device))


def _check_prompt(model: GPT, prompt_ids: Sequence[int]) -> None:
    if len(prompt_ids) == 0:
        raise DataError("the prompt has no tokens, expected one or more; begin with the tokenizer's BOS")
    outside = [i for i in prompt_ids if not 0 <= i < model.config.vocab_size]
    if outside:
        raise DataError(
            f"prompt id {outside[0]}, expected ids of the model's vocabulary 0 .. {model.config.vocab_size - 1}; "
            "is this the model's tokenizer?"
        )


def _decoder(model: GPT, sampler: _Sampler, tokens: int) -> Decoder | _PlainDecoder:
    """Reads texts of up to `tokens` tokens, or of any length if the model has fewer positions."""
    positions = min(model.config.sequence_length, tokens)
    if not supports(model):
        return _PlainDecoder(model, positions, sampler)
    sampler.shake()
    return Decoder(model, len(sampler.noise_BV), positions, sampler)


@torch.no_grad()
def _continue(decoder: Decoder | _PlainDecoder, prompt_BP: Tensor, count: int, sampler: _Sampler) -> Tensor:
    """[B, count] new ids behind a prompt [B, P]."""
    size, longest = prompt_BP.size(1), decoder.positions
    text = torch.cat([prompt_BP, prompt_BP.new_empty(prompt_BP.size(0), count)], dim=1)
    read = longest  # positions that the decoder has read; at first it must be primed
    for end in range(size, size + count):
        sampler.shake()
        if read < longest:
            drawn_B1, read = decoder.next(), read + 1
        else:
            read = _primed(end, longest)
            drawn_B1 = decoder.prime(text[:, end - read : end])
        text[:, end : end + 1] = drawn_B1
    return text[:, size:]


def _primed(tokens: int, longest: int) -> int:
    """Tokens of context that a new cache starts with: all that fit, else the last half of the positions."""
    return tokens if tokens <= longest else max(1, longest // 2)
