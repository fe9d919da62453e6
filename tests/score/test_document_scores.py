"""Sums by document, block and position are those of loops over the targets."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from pygolf.data.bundled import BUNDLED, bundled_texts
from pygolf.data.dataset import TOKENIZER_NAME
from pygolf.data.tokenizer import Tokenizer
from pygolf.score.documents import (
    BLOCK_TARGETS,
    by_position,
    load_documents,
    save_documents,
    sum_documents,
    worst_documents,
)
from pygolf.score.score_file import Text


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text[: 300 + 40 * i] for i, text in enumerate(bundled_texts("val")[:9])]


@pytest.fixture(scope="module")
def text(texts: list[str]) -> Text:
    tokenizer = Tokenizer(BUNDLED / TOKENIZER_NAME)
    return Text(tokenizer.encode_documents(texts), tokenizer, [])


@pytest.fixture(scope="module")
def losses(text: Text) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.random(len(text.tokens) - 1).astype(np.float32) for name in ("nll", "nll_plain")}


def test_documents_are_summed_as_by_a_loop(text: Text, texts: list[str], losses: dict[str, np.ndarray]) -> None:
    documents = sum_documents(text, losses)
    assert len(documents.begin) == len(texts)
    assert documents.bytes.tolist() == [len(t.encode()) for t in texts]
    decoded = text.tokenizer.decode_bytes(text.tokens)
    assert [decoded[b : b + 9] for b in documents.byte_begin] == [t.encode()[:9] for t in texts]
    for name, nll in losses.items():
        sums = np.zeros(len(texts))
        for target, value in enumerate(nll):
            sums[np.searchsorted(documents.begin, target + 1, side="right") - 1] += value
        np.testing.assert_allclose(documents.nll[name], sums, rtol=1e-6)
    assert documents.tokens.sum() == len(text.tokens) - 1
    assert documents.blocks[1] == pytest.approx(losses["nll"][BLOCK_TARGETS : 2 * BLOCK_TARGETS].sum(), rel=1e-6)
    assert documents.blocks.sum() == pytest.approx(losses["nll"].sum(), rel=1e-5)


def test_a_text_that_begins_within_a_document_keeps_its_beginning(text: Text, losses: dict[str, np.ndarray]) -> None:
    cut = Text(text.tokens[50:], text.tokenizer, [])
    documents = sum_documents(cut, {name: nll[50:] for name, nll in losses.items()})
    assert documents.begin[0] == 0
    assert documents.tokens.sum() == len(cut.tokens) - 1
    assert documents.bytes.sum() == cut.target_bytes.sum()


def test_written_and_read_again(text: Text, losses: dict[str, np.ndarray], tmp_path: Path) -> None:
    documents = sum_documents(text, losses)
    save_documents(tmp_path, documents)
    again = load_documents(tmp_path)
    assert (again.text_sha256, again.tokenizer_sha256) == (documents.text_sha256, text.tokenizer.digest)
    for name in ("begin", "byte_begin", "tokens", "bytes", "blocks"):
        assert np.array_equal(getattr(again, name), getattr(documents, name)), name
    assert all(np.array_equal(again.nll[name], documents.nll[name]) for name in losses)


@pytest.mark.parametrize("length", [7, 100, 128, 5_000])
def test_positions_are_those_of_windows_without_overlap(length: int, text: Text, losses: dict[str, np.ndarray]) -> None:
    nll, count = losses["nll_plain"], len(text.tokens) - 1
    ranges = by_position(text, nll, length)
    length = min(length, count)
    whole = count // length * length
    position = [i % length if i < whole else length - count + i for i in range(count)]
    assert (ranges[0]["begin"], ranges[-1]["end"]) == (0, length)
    for r in ranges:
        inside = [i for i in range(count) if r["begin"] <= position[i] < r["end"]]
        assert (r["tokens"], r["bytes"]) == (len(inside), text.target_bytes[inside].sum())
        assert r["nll"] == pytest.approx(nll[inside].sum(), rel=1e-5)


def test_the_worst_documents_come_first_with_their_text(text: Text, texts: list[str]) -> None:
    nll = np.ones(len(text.tokens) - 1, dtype=np.float32)
    begin = int(np.flatnonzero(text.tokens == text.tokenizer.bos_id)[4])
    nll[begin : begin + 100] = 20
    worst = worst_documents(text, sum_documents(text, {"nll": nll}))
    assert worst[0]["document"] == 4
    assert worst[0]["text"] == texts[4][:600]
    assert [w["bpb"] for w in worst] == sorted((w["bpb"] for w in worst), reverse=True)
    assert worst[0]["bpb"] == pytest.approx(
        nll[begin - 1 : begin - 1 + worst[0]["tokens"]].sum() / (math.log(2) * worst[0]["bytes"])
    )


def test_a_document_may_be_longer_than_16_bits_can_count(text: Text) -> None:
    words = "mineral " * 12_000
    long = Text(text.tokenizer.encode_documents([words]), text.tokenizer, [])
    nll = np.ones(len(long.tokens) - 1, dtype=np.float32)
    assert sum_documents(long, {"nll": nll}).bytes.tolist() == [len(words)]
