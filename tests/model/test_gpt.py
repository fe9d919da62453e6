"""The model against a slow reading of its definition, and the properties that training and decoding rely on.

The reference below shares no code with the model: loops over positions, heads and channels' formulas in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from random_models import random_model

from pygolf.config import ModelConfig
from pygolf.model.attention import CausalSelfAttention, apply_rotary, rotary_tables
from pygolf.model.gpt import GPT, bigram_index, initialize
from pygolf.presets import record

Array = NDArray[np.float64]

SMALL = ModelConfig(
    vocab_size=23,
    layers=5,
    width=24,
    heads=4,
    kv_heads=2,
    mlp_width=20,
    sequence_length=16,
    rotary_dims=4,
    bigram_rows=13,
    bigram_width=5,
    value_embedding_width=7,
    value_embedding_layers=(2, 4),
)


def random_ids(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(SMALL.vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


# --- the reference: one sequence, float64, positions and heads in loops ---


def rms(x: Array) -> Array:
    return x / np.sqrt(np.mean(x * x) + np.finfo(np.float32).eps)


def rotate(x: Array, position: int, c: ModelConfig) -> Array:
    half, out = c.rotary_dims // 2, x.copy()
    for i in range(half):
        angle = position * c.rotary_base ** (-2 * i / c.rotary_dims)
        pair = complex(x[i], x[i + half]) * complex(math.cos(angle), -math.sin(angle))
        out[i], out[i + half] = pair.real, pair.imag
    return out


def embed(p: dict[str, Array], ids: Sequence[int], c: ModelConfig) -> list[Array]:
    normed = []
    for t, token in enumerate(ids):
        row = (36313 * token ^ 27191 * ids[t - 1]) % (c.bigram_rows - 1) if t else c.bigram_rows - 1
        bigram = p["bigram.scale"] * (p["bigram.proj.weight"] @ p["bigram.embed.weight"][row])
        normed.append(rms(p["tok_emb.weight"][token] + bigram))
    g = 1 / (1 + np.exp(-p["smear.gate"]))
    return [(1 - g) * x + g * (normed[t - 1] if t else 0) for t, x in enumerate(normed)]


def attend(p: dict[str, Array], name: str, xs: list[Array], extra: list[Array], c: ModelConfig) -> list[Array]:
    keys, values, out = [], [], []
    for t, x in enumerate(xs):
        k = (p[f"{name}.k.weight"] @ x).reshape(c.kv_heads, -1)
        keys.append([rotate(rms(head), t, c) for head in k])
        values.append((p[f"{name}.v.weight"] @ x + extra[t]).reshape(c.kv_heads, -1))
        heads = []
        for h, q in enumerate((p[f"{name}.q.weight"] @ x).reshape(c.heads, -1)):
            kv = h // (c.heads // c.kv_heads)
            query = rotate(rms(q), t, c) * p[f"{name}.q_gain"][h]
            weights = np.exp([query @ keys[s][kv] / math.sqrt(c.head_width) for s in range(t + 1)])
            y = sum(w * values[s][kv] for s, w in enumerate(weights / weights.sum()))
            own = values[t][kv] / np.linalg.norm(values[t][kv])
            heads.append(y - (y @ own) * own)
        out.append(p[f"{name}.out.weight"] @ np.concatenate(heads))
    return out


def run_block(p: dict[str, Array], i: int, xs: list[Array], x0s: list[Array], extra: list[Array], c: ModelConfig):
    name, scale = f"blocks.{i}", 1 / math.sqrt(i + 1)
    mix = p[f"{name}.resid_mix"]
    xs = [mix[0] * x + mix[1] * x0 for x, x0 in zip(xs, x0s, strict=True)]
    attended = attend(p, f"{name}.attn", [rms(x) * scale for x in xs], extra, c)
    xs = [x + p[f"{name}.attn_scale"] * a for x, a in zip(xs, attended, strict=True)]
    out = []
    for x in xs:
        u = p[f"{name}.mlp.up.weight"] @ (rms(x) * scale)
        out.append(x + p[f"{name}.mlp_scale"] * (p[f"{name}.mlp.down.weight"] @ np.where(u > 0, u, 0.5 * u) ** 2))
    return out


def reference_nll(model: GPT, ids: Sequence[int], targets: Sequence[int]) -> Array:
    c, p = model.config, {k: v.double().numpy() for k, v in model.state_dict().items()}
    x0s = xs = embed(p, ids, c)
    extra = [p["ve_shared.scale"] * (p["ve_shared.proj.weight"] @ p["ve_shared.embed.weight"][i]) for i in ids]
    pushed = []
    for i in range(c.layers):
        if i >= c.layers // 2 and pushed:
            weight, skip = p["skip_weights"][i - c.layers // 2], pushed.pop()
            xs = [x + weight * s for x, s in zip(xs, skip, strict=True)]
        factor = 0.0
        if i in c.value_embedding_layers:
            factor = p[f"ve_layer_scales.{c.value_embedding_layers.index(i)}"]
        xs = run_block(p, i, xs, x0s, [factor * e for e in extra], c)
        if i < c.layers // 2:
            pushed.append(xs)
    nll = []
    for x, target in zip(xs, targets, strict=True):
        logits = c.logit_cap * np.tanh(p["tok_emb.weight"] @ rms(x) / c.logit_cap)
        nll.append(np.log(np.exp(logits).sum()) - logits[target])
    return np.array(nll)


# --- tests ---


@pytest.mark.parametrize("layers", [4, 5])
def test_the_whole_model_equals_its_definition(layers: int) -> None:
    config = ModelConfig(**{**vars(SMALL), "layers": layers, "value_embedding_layers": (1, layers - 1)})
    model, ids = random_model(config), random_ids(2, 13)
    with torch.no_grad():
        got = model(ids[:, :-1], ids[:, 1:]).numpy()
    want = np.stack([reference_nll(model, row[:-1], row[1:]) for row in ids.tolist()])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)


def test_no_position_depends_on_a_later_token() -> None:
    model, ids = random_model(SMALL), random_ids(1, SMALL.sequence_length)
    with torch.no_grad():
        before = model.hidden(ids)
        for t in range(SMALL.sequence_length):
            flipped = ids.clone()
            flipped[0, t] = (ids[0, t] + 1) % SMALL.vocab_size
            after = model.hidden(flipped)
            assert torch.equal(after[:, :t], before[:, :t]), f"a change of token {t} reached an earlier position"
            changed = (after - before).abs().amax(-1)[0, t:]
            assert changed.min() > 1e-4, f"a change of token {t} did not reach every position from {t} on"


def test_states_do_not_depend_on_the_length_of_the_input() -> None:
    model, ids = random_model(SMALL), random_ids(2, SMALL.sequence_length)
    with torch.no_grad():
        whole = model.hidden(ids)
        for n in range(1, SMALL.sequence_length):
            torch.testing.assert_close(model.hidden(ids[:, :n]), whole[:, :n], rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunks", [[1] * 16, [16], [5, 1, 1, 7, 2], [1, 15], [9, 3, 4]])
def test_cached_decoding_equals_the_full_forward(chunks: list[int]) -> None:
    model, ids = random_model(SMALL), random_ids(3, 16)
    cache = model.new_cache(3, 16)
    with torch.no_grad():
        parts = [model.hidden(part, cache) for part in ids.split(chunks, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model.hidden(ids), rtol=0, atol=1e-5)
    assert cache.length == 16


def test_rotary_turns_the_first_dimensions_only() -> None:
    cos, sin = rotary_tables(8, 4, 100.0)
    x = torch.arange(1.0, 7.0).expand(1, 8, 1, 6)
    turned = apply_rotary(x, cos, sin)
    assert torch.equal(turned[..., 4:], x[..., 4:])
    # Pairs (0, 2) and (1, 3) turn back by position * 1 and position * 0.1.
    t = 3
    want = [
        math.cos(t) + 3 * math.sin(t),
        2 * math.cos(0.1 * t) + 4 * math.sin(0.1 * t),
        3 * math.cos(t) - math.sin(t),
        4 * math.cos(0.1 * t) - 2 * math.sin(0.1 * t),
    ]
    torch.testing.assert_close(turned[0, t, 0, :4], torch.tensor(want))


def test_rotary_tables_agree_for_every_length() -> None:
    long_cos, long_sin = rotary_tables(2048, 16, 22_082.0)
    cos, sin = rotary_tables(100, 16, 22_082.0)
    assert torch.equal(cos, long_cos[:100])
    assert torch.equal(sin, long_sin[:100])


def test_attention_removes_the_tokens_own_value() -> None:
    layer = CausalSelfAttention(SMALL)
    layer.out.weight = torch.nn.Parameter(torch.eye(SMALL.width))  # lets the heads through
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 9, SMALL.width, generator=generator)
    extra = torch.randn(2, 9, SMALL.kv_heads * SMALL.head_width, generator=generator)
    with torch.no_grad():
        y = layer(x, rotary_tables(9, 4, 100.0), extra).view(2, 9, SMALL.kv_heads, -1, SMALL.head_width)
        v = (layer.v(x) + extra).view(2, 9, SMALL.kv_heads, 1, SMALL.head_width)
    along = (y * torch.nn.functional.normalize(v, dim=-1)).sum(-1)
    assert along.abs().max() < 1e-5
    assert y[:, 0].abs().max() < 1e-5  # the first token sees only itself
    assert y[:, 1:].norm(dim=-1).mean() > 0.1


@pytest.mark.parametrize("layers", [4, 5])
def test_skips_join_the_first_half_to_the_second_last_in_first_out(layers: int) -> None:
    model = GPT(ModelConfig(**{**vars(SMALL), "layers": layers, "value_embedding_layers": ()}))
    initialize(model, 0)  # attention-out and down are zero: block i only multiplies by resid_mix
    generator = torch.Generator().manual_seed(2)
    weights = torch.randn(2, SMALL.width, generator=generator)
    c = torch.rand(layers, SMALL.width, generator=generator) + 0.5
    with torch.no_grad():
        model.skip_weights.copy_(weights)
        for i, block in enumerate(model.blocks):
            block.resid_mix[0] = c[i]
        ids = random_ids(1, 6)
        x0 = model._embed(ids, None)
        want = ((c[0] * c[1] * (1 + weights[0])) * c[2] + weights[1] * c[0]) * c[3]
        if layers == 5:
            want = want * c[4]  # an odd block is left without a skip
        torch.testing.assert_close(model.hidden(ids), torch.nn.functional.rms_norm(want * x0, (SMALL.width,)))


def test_bigram_rows() -> None:
    # 36313·5 = 181565, 27191·3 = 81573; 181565 XOR 81573 = 261016; mod 2047 = 1047.
    # 36313·1023 = 37148199, 27191·1 = 27191; XOR = 37141520; mod 2047 = 752.
    ids, previous = torch.tensor([[7, 5, 1023, 0]]), torch.tensor([[-1, 3, 1, 0]])
    assert bigram_index(ids, previous, 2048).tolist() == [[2047, 1047, 752, 0]]


def test_the_record_model_has_the_published_size() -> None:
    with torch.device("meta"):
        model = GPT(record().model)
    assert sum(parameter.numel() for parameter in model.parameters()) == 26_993_756


@pytest.fixture(scope="module")
def fresh_weights() -> dict[str, torch.Tensor]:
    model = GPT(ModelConfig(layers=2, vocab_size=600, value_embedding_layers=(1,)))
    initialize(model, 7)
    return {name: value.detach() for name, value in model.named_parameters()}


def test_inputs_of_a_block_are_orthogonal(fresh_weights: dict[str, torch.Tensor]) -> None:
    names = [f"blocks.1.{n}.weight" for n in ("attn.q", "attn.k", "attn.v", "mlp.up")]
    for name in [*names, "bigram.proj.weight", "ve_shared.proj.weight"]:
        w = fresh_weights[name]
        gram = w @ w.T if w.size(0) <= w.size(1) else w.T @ w
        torch.testing.assert_close(gram, torch.eye(len(gram)), rtol=0, atol=1e-5, msg=name)


def test_outputs_of_a_block_and_the_bigram_table_are_zero(fresh_weights: dict[str, torch.Tensor]) -> None:
    for name in ("blocks.0.attn.out.weight", "blocks.1.mlp.down.weight", "bigram.embed.weight", "smear.gate"):
        assert not fresh_weights[name].any(), name


def test_tables_have_their_spread(fresh_weights: dict[str, torch.Tensor]) -> None:
    for name, std in (("tok_emb.weight", 0.005), ("ve_shared.embed.weight", 0.01)):
        assert fresh_weights[name].std().item() == pytest.approx(std, rel=0.02), name
        assert abs(fresh_weights[name].mean().item()) < 0.02 * std, name


def test_gains_and_scales_start_as_given(fresh_weights: dict[str, torch.Tensor]) -> None:
    constants = {
        "blocks.1.attn.q_gain": 5.0,
        "blocks.1.attn_scale": 1.0,
        "blocks.1.mlp_scale": 1.0,
        "skip_weights": 1.0,
        "bigram.scale": 0.05,
        "ve_shared.scale": 0.1,
        "ve_layer_scales.0": 1.0,
    }
    for name, value in constants.items():
        assert torch.equal(fresh_weights[name], torch.full_like(fresh_weights[name], value)), name
    mix = fresh_weights["blocks.0.resid_mix"]
    assert mix[0].eq(1).all()
    assert mix[1].eq(0).all()


def test_the_seed_settles_every_weight() -> None:
    a, b, other = (GPT(SMALL) for _ in range(3))
    initialize(a, 1)
    initialize(b, 1)
    initialize(other, 2)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.tok_emb.weight, other.tok_emb.weight)
    assert not torch.equal(a.blocks[0].attn.q.weight, a.blocks[1].attn.q.weight)


def test_probabilities_sum_to_one() -> None:
    model = random_model(SMALL)
    with torch.no_grad():
        logits = model.logits(model.hidden(random_ids(2, 8)))
    assert logits.abs().max() <= SMALL.logit_cap
    torch.testing.assert_close(logits.double().softmax(-1).sum(-1), torch.ones(2, 8, dtype=torch.float64))
