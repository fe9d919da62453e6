"""SentencePiece tokenizer and the byte accounting that turns nats into bits per byte (RECIPE 2).

Legend: V pieces of the vocabulary.

Bytes of a token: 0 for control, unknown and unused pieces; 1 for a byte-fallback piece; else the UTF-8 length
of the piece without its leading U+2581 (SentencePiece's mark for a space), plus 1 for that space unless the
previous token is control, unknown or unused. `decode` follows the same rule, so bytes and text always agree.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
from numpy.typing import ArrayLike, NDArray

from pygolf.errors import DataError
from pygolf.files import replacing

SPACE_MARK = "\u2581"
MAX_VOCAB_SIZE = 65_536  # shards hold 16-bit ids

# What a tokenizer that rewrites its input would change: runs of white space, a ligature, the mark itself.
_FRAGILE_TEXT = f"  a  b\t\n\ufb01{SPACE_MARK} c "
# SentencePiece's trainer counts characters of a stretch without spaces in 16 bits, so long texts are cut for it.
_TRAINING_PIECE_CHARACTERS = 4000


@dataclass(frozen=True)
class TokenBytes:
    """UTF-8 bytes that each piece adds to a text, as arrays that scoring can move to its device."""

    base_bytes: NDArray[np.int16]
    """[V] bytes without the leading space; 0 for boundary pieces."""
    leading_space: NDArray[np.bool_]
    """[V] whether the piece begins with U+2581."""
    is_boundary: NDArray[np.bool_]
    """[V] control, unknown and unused pieces; a space right after one of them is not part of the text."""

    def target_bytes(self, previous_ids: ArrayLike, target_ids: ArrayLike) -> NDArray[np.int64]:
        """Bytes of every target, given the token before it; both of one shape, which the result has too."""
        previous, target = np.asarray(previous_ids), np.asarray(target_ids)
        count: NDArray[np.int64] = self.base_bytes[target].astype(np.int64)
        count += self.leading_space[target] & ~self.is_boundary[previous]
        return count


class Tokenizer:
    """A SentencePiece model file.

    A model that keeps white space and characters as they are (`is_exact`; all that `train_tokenizer` makes)
    gets every text back: decode(encode(text)) == text. Others, like the challenge's, rewrite the text first
    (NFKC, runs of white space become one space), and bytes count the rewritten text.

    Raises DataError if the file cannot be read, is no SentencePiece model, has no BOS piece, or has more
    pieces than 16-bit shards can hold.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        model = _read_model(self.path)
        self.digest = hashlib.sha256(model).hexdigest()
        self._processor = _load_processor(self.path, model)
        self.vocab_size: int = self._processor.vocab_size()
        self.bos_id: int = self._processor.bos_id()
        self._check()
        tokens = range(self.vocab_size)
        self._boundary = [self._is_boundary(token) for token in tokens]
        self._leading_space = [self._begins_with_space(token) for token in tokens]
        self._piece_bytes = [self._bytes_of_piece(token) for token in tokens]
        self._space_id = self._processor.piece_to_id("<0x20>")
        self._mark_ids = [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE_MARK.encode()]
        self.is_exact = self.decode(self._exact_ids(_FRAGILE_TEXT)) == _FRAGILE_TEXT

    def encode(self, text: str) -> NDArray[np.uint16]:
        """Token ids of a text, without BOS. Raises DataError for a text that UTF-8 cannot hold."""
        try:
            return np.array(self._ids(text), dtype=np.uint16)
        except RuntimeError as error:
            raise DataError(f"cannot encode {text[:80]!r}: it holds half of a surrogate pair; remove it") from error

    def encode_documents(self, texts: Iterable[str]) -> NDArray[np.uint16]:
        """Token ids of several documents in a row: BOS before each, nothing after."""
        ids: list[int] = []
        for text in texts:
            ids.append(self.bos_id)
            ids.extend(self._ids(text))
        return np.array(ids, dtype=np.uint16)

    def decode_bytes(self, ids: Sequence[int] | NDArray[np.integer]) -> bytes:
        """UTF-8 bytes of the tokens. What they begin with counts as after BOS; half a character stays half."""
        parts: list[bytes] = []
        after_boundary = True
        for token in map(int, ids):
            piece = self._piece_bytes[token]
            parts.append(piece[1:] if after_boundary and self._leading_space[token] else piece)
            after_boundary = self._boundary[token]
        return b"".join(parts)

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """Text of the tokens; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def token_bytes(self) -> TokenBytes:
        """Tables for the denominator of bits per byte."""
        space = np.array(self._leading_space)
        length = np.array([len(piece) for piece in self._piece_bytes], dtype=np.int16)
        return TokenBytes(base_bytes=length - space, leading_space=space, is_boundary=np.array(self._boundary))

    def _ids(self, text: str) -> list[int]:
        return self._exact_ids(text) if self.is_exact else list(self._processor.encode(text))

    def _exact_ids(self, text: str) -> list[int]:
        # A space at the start is spelled as a byte, because no space is counted after BOS; a literal U+2581
        # is spelled as bytes, because its piece means a space.
        ids: list[int] = []
        if text.startswith(" "):
            ids, text = [self._space_id], text[1:]
        first, *others = text.split(SPACE_MARK)
        ids.extend(self._processor.encode(first))
        for part in others:
            ids.extend(self._mark_ids)
            ids.extend(self._processor.encode(part))
        return ids

    def _check(self) -> None:
        if self.vocab_size > MAX_VOCAB_SIZE:
            raise DataError(
                f"{self.path}: {self.vocab_size} pieces, but token shards hold 16-bit ids (at most "
                f"{MAX_VOCAB_SIZE}); use a smaller vocabulary"
            )
        if self.bos_id < 0:
            raise DataError(f"{self.path}: no BOS piece, and every document begins with one; train with bos_id=1")

    def _is_boundary(self, token: int) -> bool:
        model = self._processor
        return bool(model.is_control(token) or model.is_unknown(token) or model.is_unused(token))

    def _begins_with_space(self, token: int) -> bool:
        return not self._boundary[token] and self._piece(token).startswith(SPACE_MARK)

    def _piece(self, token: int) -> str:
        return str(self._processor.id_to_piece(token))

    def _bytes_of_piece(self, token: int) -> bytes:
        if self._boundary[token]:
            return b""
        piece = self._piece(token)
        if self._processor.is_byte(token):
            return bytes([int(piece[3:5], 16)])  # "<0xE2>"
        return piece.replace(SPACE_MARK, " ").encode()


def train_tokenizer(texts: Iterable[str], vocab_size: int, out: Path) -> Tokenizer:
    """Trains a BPE tokenizer with byte fallback on texts, writes its model to `out` and returns it.

    Pieces as in the challenge's tokenizers (pad 0, bos 1, eos 2, unk 3, 256 byte pieces, split digits, no
    dummy prefix), but no rewriting of the text: every text decodes to itself, so bits per byte refer to the
    text that the user has. The same texts in the same order give the same file.

    Raises DataError if `vocab_size` does not suit the texts.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_training_pieces(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=0.999,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            hard_vocab_limit=True,
            max_sentence_length=4 * _TRAINING_PIECE_CHARACTERS,  # bytes
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"cannot train a tokenizer of {vocab_size} pieces on this text ({error}); "
            "260 pieces and one for each frequent character are needed, and text enough to merge the rest"
        ) from error
    with replacing(out) as temporary:
        temporary.write_bytes(model.getvalue())
    return Tokenizer(out)


def _training_pieces(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for start in range(0, len(text), _TRAINING_PIECE_CHARACTERS):
            yield text[start : start + _TRAINING_PIECE_CHARACTERS]


def _read_model(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot read the tokenizer ({error.strerror}); expected a SentencePiece .model file, "
            "which 'pygolf shard' and 'pygolf download' put beside the shards"
        ) from error


def _load_processor(path: Path, model: bytes) -> sentencepiece.SentencePieceProcessor:
    try:
        if model:  # SentencePiece takes nothing for a model without pieces
            return sentencepiece.SentencePieceProcessor(model_proto=model)
        reason = "the file is empty"
    except RuntimeError as error:
        reason = str(error)
    raise DataError(f"{path}: not a SentencePiece model ({reason}); expected a .model file")
