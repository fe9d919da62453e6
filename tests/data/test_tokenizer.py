"""Tokenizer: byte accounting against the text itself, round trips, training, errors."""

from __future__ import annotations

import hashlib
import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pygolf.data.bundled import BUNDLED, bundled_texts
from pygolf.data.dataset import TOKENIZER_NAME
from pygolf.data.tokenizer import Tokenizer, train_tokenizer
from pygolf.errors import DataError

DOCUMENTS = [
    "Plain words, and a line.\nAnother line.\n\n\tIndented by a tab.",
    "Emoji 😀👩‍👩‍👧‍👦🏴󠁧󠁢󠁷󠁬󠁳󠁿 in the middle, and at the end 🎉",
    "漢字かな交じり文、한국어 텍스트。中文字符。",
    "Two  spaces,   three    four, and a trailing one ",
    " one leading space",
    "   three leading spaces\n  and two on a line",
    "\t\ttabs first\tthen\t\tmore",
    "CRLF\r\nlines\r\n\r\n",
    "literal \u2581 marks \u2581\u2581x and \u2581",
    "\u2581first",
    "combining e\u0301, ligature ﬁ, half ½, no-break\u00a0space, zero\u200bwidth, BOM \ufeff, NUL \x00.",
    "<s> </s> <unk> <0x41> are text here",
    "1234567890 0x1F600 3.14159",
    " ",
    "",
]


@pytest.fixture(scope="module")
def bundled() -> Tokenizer:
    return Tokenizer(BUNDLED / TOKENIZER_NAME)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_tokenizer(bundled_texts("val"), 512, tmp_path_factory.mktemp("tokenizer") / "t.model")


def train_otherwise(path: Path, **settings: Any) -> Tokenizer:
    """A tokenizer as others make them."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in bundled_texts("val") for line in text.splitlines()),
        model_writer=model,
        model_type="bpe",
        vocab_size=512,
        byte_fallback=True,
        minloglevel=2,
        **settings,
    )
    path.write_bytes(model.getvalue())
    return Tokenizer(path)


@pytest.fixture(scope="module")
def rewriting(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """As the challenge's: NFKC, and runs of white space become one space."""
    path = tmp_path_factory.mktemp("tokenizer") / "rewriting.model"
    return train_otherwise(path, normalization_rule_name="nmt_nfkc", add_dummy_prefix=False)


@pytest.fixture(scope="module")
def prefixing(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """As Llama's: the text stays, with a space put before it that is no part of it."""
    path = tmp_path_factory.mktemp("tokenizer") / "prefixing.model"
    return train_otherwise(path, normalization_rule_name="identity", remove_extra_whitespaces=False)


@pytest.fixture(params=["bundled", "trained"])
def exact(request: pytest.FixtureRequest) -> Tokenizer:
    tokenizer = request.getfixturevalue(request.param)
    assert isinstance(tokenizer, Tokenizer)
    return tokenizer


def bytes_of(tokenizer: Tokenizer, ids: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Bytes of ids that follow a BOS."""
    stream = np.concatenate([[tokenizer.bos_id], ids])
    return tokenizer.token_bytes().target_bytes(stream[:-1], stream[1:])


@pytest.mark.parametrize("text", DOCUMENTS)
def test_bytes_of_tokens_are_the_bytes_of_the_text(exact: Tokenizer, text: str) -> None:
    assert exact.is_exact
    ids = exact.encode(text)
    assert bytes_of(exact, ids).sum() == len(text.encode())
    assert exact.decode(ids) == text


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \u2581\t\nab"))))
def test_every_text_comes_back(bundled: Tokenizer, text: str) -> None:
    ids = bundled.encode(text)
    assert bundled.decode(ids) == text
    assert bytes_of(bundled, ids).sum() == len(text.encode())


def test_real_documents_in_a_row(exact: Tokenizer) -> None:
    texts = bundled_texts("val")
    stream = exact.encode_documents(texts)
    assert np.count_nonzero(stream == exact.bos_id) == len(texts)
    assert stream[0] == exact.bos_id
    size = sum(len(text.encode()) for text in texts)
    assert exact.token_bytes().target_bytes(stream[:-1], stream[1:]).sum() == size
    assert exact.decode(stream) == "".join(texts)


@pytest.mark.parametrize("name", ["rewriting", "prefixing"])
def test_other_tokenizers_count_what_sentencepiece_decodes_to(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    assert not tokenizer.is_exact
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer.path))
    for text in [*DOCUMENTS, "x ﬁ ½  ㍿ ①　⅔", *bundled_texts("val")[:5]]:
        ids = tokenizer.encode(text)
        decoded = processor.decode(ids.tolist())
        assert bytes_of(tokenizer, ids).sum() == len(decoded.encode())
        assert tokenizer.decode(ids) == decoded


def test_control_pieces_count_nothing_and_swallow_a_space(bundled: Tokenizer) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(bundled.path))
    the, byte = processor.piece_to_id("▁the"), processor.piece_to_id("<0xE2>")
    pad, bos, eos, unknown = range(4)
    stream = np.array([bos, the, the, eos, the, pad, the, byte, the, unknown, the, bos, byte, bos])
    counted = bundled.token_bytes().target_bytes(stream[:-1], stream[1:])
    assert counted.tolist() == [3, 4, 0, 3, 0, 3, 1, 4, 0, 3, 0, 1, 0]
    assert bundled.decode_bytes(stream) == b"the the" + b"the" + b"the\xe2 the" + b"the" + b"\xe2"


def naive_bytes(processor: sentencepiece.SentencePieceProcessor, previous: int, target: int) -> int:
    """RECIPE 2's sentence, a token at a time."""

    def boundary(token: int) -> bool:
        return bool(processor.is_control(token) or processor.is_unknown(token) or processor.is_unused(token))

    if boundary(target):
        return 0
    if processor.is_byte(target):
        return 1
    piece = processor.id_to_piece(target)
    return len(piece.removeprefix("▁").encode()) + (piece.startswith("▁") and not boundary(previous))


@pytest.mark.parametrize("name", ["bundled", "trained", "rewriting", "prefixing"])
def test_tables_equal_the_rule(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer.path))
    stream = np.random.default_rng(0).integers(0, tokenizer.vocab_size, 5000)
    stream[::7] = np.arange(stream[::7].size) % 4  # control pieces are rare among 1024
    expected = [naive_bytes(processor, int(a), int(b)) for a, b in pairwise(stream)]
    counted = tokenizer.token_bytes().target_bytes(stream[:-1].reshape(-1, 1), stream[1:].reshape(-1, 1))
    assert tokenizer.token_bytes().base_bytes.dtype == np.int16
    assert counted.shape == (4999, 1)
    assert counted.dtype == np.int64
    assert counted[:, 0].tolist() == expected
    assert len(tokenizer.decode_bytes(stream)) == sum(expected) + naive_bytes(processor, 0, int(stream[0]))


def test_pieces_are_where_the_challenge_has_them(trained: Tokenizer) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(trained.path))
    assert (trained.vocab_size, trained.bos_id) == (512, 1)
    assert [processor.pad_id(), processor.bos_id(), processor.eos_id(), processor.unk_id()] == [0, 1, 2, 3]
    assert [processor.id_to_piece(4 + byte) for byte in range(256)] == [f"<0x{byte:02X}>" for byte in range(256)]


def test_training_is_deterministic_and_the_digest_is_the_files(tmp_path: Path, trained: Tokenizer) -> None:
    again = train_tokenizer(iter(bundled_texts("val")), 512, tmp_path / "elsewhere" / "other.model")
    assert again.digest == trained.digest == hashlib.sha256(again.path.read_bytes()).hexdigest()
    assert [path.name for path in again.path.parent.iterdir()] == ["other.model"]


def test_text_without_spaces_and_with_tabs_can_be_trained_on(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["日本語" * 30_000, "\ta b c " * 500], 272, tmp_path / "t.model")
    assert len(tokenizer.encode("日本語" * 100)) <= 100
    assert len(tokenizer.encode("\t")) == 1


@pytest.mark.parametrize("vocab_size", [100, 5000])
def test_vocabulary_that_does_not_suit_the_text(tmp_path: Path, vocab_size: int) -> None:
    with pytest.raises(DataError, match=f"{vocab_size} pieces"):
        train_tokenizer(["a few words"], vocab_size, tmp_path / "t.model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x0a\xff\xff\xff"])
def test_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.model"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.model: not a SentencePiece model"):
        Tokenizer(path)


def test_missing_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the tokenizer"):
        Tokenizer(tmp_path / "none.model")


def test_model_without_bos(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no BOS piece"):
        train_otherwise(tmp_path / "t.model", bos_id=-1)


def test_half_a_surrogate_pair_is_refused(bundled: Tokenizer) -> None:
    with pytest.raises(DataError, match="surrogate"):
        bundled.encode("x\ud83d")
