"""Losses by document and by place, kept beside a score: documents.safetensors of a run folder.

A document is BOS and what follows it up to the next BOS; tokens before the first BOS are one too. The target that is
a BOS belongs to the document that it begins. Legend: N tokens, D documents.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pygolf.errors import FormatError
from pygolf.score.score_file import Text
from pygolf.tensors import load_tensors, save_tensors

DOCUMENTS_NAME = "documents.safetensors"
BLOCK_TARGETS = 64
"""Targets whose nats are kept as one sum, so that a score can be checked in parts."""
POSITION_RANGES = 64
WORST_DOCUMENTS = 8
WORST_BYTES = 200
WORST_CHARACTERS = 600

Losses = Mapping[str, NDArray[np.float32]]
"""Name (nll, nll_plain, nll_adaptive) -> nats of every target [N - 1]."""


@dataclass(frozen=True)
class Documents:
    """Sums over every document of a scored text."""

    text_sha256: str
    """Digest of the text's token bytes."""
    tokenizer_sha256: str
    begin: NDArray[np.int64]
    """[D] first token of each document in the text."""
    byte_begin: NDArray[np.int64]
    """[D] first byte of each document in the decoded text."""
    tokens: NDArray[np.int64]
    """[D] scored targets."""
    bytes: NDArray[np.int64]
    """[D] UTF-8 bytes of the targets."""
    nll: dict[str, NDArray[np.float64]]
    """Name as in Losses -> [D] nats."""
    blocks: NDArray[np.float32]
    """[ceil((N - 1) / BLOCK_TARGETS)] nats of the sliding score, block by block."""


def text_digest(text: Text) -> str:
    """SHA-256 (hex) of the token bytes of a text."""
    return hashlib.sha256(np.ascontiguousarray(text.tokens, dtype="<u2").data).hexdigest()


def sum_documents(text: Text, losses: Losses) -> Documents:
    """Adds up the losses of each document."""
    begin = np.flatnonzero(text.tokens == text.tokenizer.bos_id)
    if not len(begin) or begin[0]:
        begin = np.append(0, begin)
    # Target i is token i + 1; token 0 is nobody's target.
    edges = np.append(np.maximum(begin - 1, 0), len(text.tokens) - 1)
    byte_sums = _sums(text.target_bytes, edges)
    return Documents(
        text_digest(text),
        text.tokenizer.digest,
        begin.astype(np.int64),
        np.cumsum(byte_sums) - byte_sums,
        np.diff(edges),
        byte_sums,
        {name: _sums(values.astype(np.float64), edges) for name, values in losses.items()},
        block_sums(losses["nll"]),
    )


def block_sums(nll: NDArray[np.float32]) -> NDArray[np.float32]:
    """Nats of every BLOCK_TARGETS targets in a row; the last block may hold fewer."""
    padded = np.zeros(-(-len(nll) // BLOCK_TARGETS) * BLOCK_TARGETS, dtype=np.float64)
    padded[: len(nll)] = nll
    return padded.reshape(-1, BLOCK_TARGETS).sum(axis=1).astype(np.float32)


def _sums(values: NDArray[Any], edges: NDArray[np.int64]) -> NDArray[Any]:
    """Sums between neighbouring edges, some of which may be equal; of integers in 64 bits."""
    sums = np.cumsum(values)  # numpy adds small integers up in 64 bits
    total = np.concatenate([np.zeros(1, sums.dtype), sums])
    return total[edges[1:]] - total[edges[:-1]]


def save_documents(folder: Path, documents: Documents) -> None:
    """Writes documents.safetensors."""
    arrays = {name: getattr(documents, name) for name in ("begin", "byte_begin", "tokens", "bytes", "blocks")}
    record = {
        "text_sha256": documents.text_sha256,
        "tokenizer_sha256": documents.tokenizer_sha256,
        "block_tokens": BLOCK_TARGETS,
    }
    tensors = {name: torch.from_numpy(values) for name, values in {**arrays, **documents.nll}.items()}
    save_tensors(folder / DOCUMENTS_NAME, tensors, record)


def load_documents(folder: Path) -> Documents:
    """Reads documents.safetensors of a run folder. Raises IoError if it is missing, FormatError if it is damaged."""
    path = folder / DOCUMENTS_NAME
    tensors, record = load_tensors(path)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    try:
        nll = {name: arrays.pop(name) for name in sorted(arrays) if name.startswith("nll")}
        return Documents(record["text_sha256"], record["tokenizer_sha256"], nll=nll, **arrays)
    except (KeyError, TypeError) as error:
        raise FormatError(f"{path} is no table of documents ({error}); score the run again") from None


def bits_per_byte(nll: float, byte_count: int) -> float | None:
    """Bits per byte of a sum; None without bytes."""
    return nll / (math.log(2) * byte_count) if byte_count else None


def by_position(text: Text, nll_plain: NDArray[np.float32], length: int) -> list[dict[str, Any]]:
    """Sums over even ranges of the position in the window, from the evaluation without overlap."""
    length = min(length, len(nll_plain))
    tokens = _by_column(np.ones(len(nll_plain), np.int8), length)
    byte_sums = _by_column(text.target_bytes, length)
    nll = _by_column(nll_plain, length)
    count = min(POSITION_RANGES, length)
    edges = np.arange(count + 1) * length // count
    return [
        {
            "begin": int(a),
            "end": int(b),
            "tokens": int(tokens[a:b].sum()),
            "bytes": int(byte_sums[a:b].sum()),
            "nll": float(nll[a:b].sum()),
            "bpb": bits_per_byte(float(nll[a:b].sum()), int(byte_sums[a:b].sum())),
        }
        for a, b in pairwise(edges)
    ]


def _by_column(values: NDArray[Any], length: int) -> NDArray[np.float64]:
    """[length] sums over windows by position; what is left behind the last whole window ends a window of its own."""
    whole = len(values) // length * length
    sums = values[:whole].reshape(-1, length).sum(axis=0, dtype=np.float64)
    rest = values[whole:]
    sums[length - len(rest) :] += rest
    return sums


def worst_documents(text: Text, documents: Documents) -> list[dict[str, Any]]:
    """The documents of WORST_BYTES or more with the most bits per byte, with the beginning of their text."""
    long = np.flatnonzero(documents.bytes >= WORST_BYTES)
    bpb = documents.nll["nll"][long] / (math.log(2) * documents.bytes[long])
    order = np.argsort(-bpb)[:WORST_DOCUMENTS]
    return [_described(text, documents, int(long[i]), float(bpb[i])) for i in order]


def _described(text: Text, documents: Documents, document: int, bpb: float) -> dict[str, Any]:
    begin, tokens = int(documents.begin[document]), int(documents.tokens[document])
    decoded = text.tokenizer.decode(text.tokens[begin : begin + min(tokens + 1, WORST_CHARACTERS)])
    return {
        "document": document,
        "begin": begin,
        "tokens": tokens,
        "bytes": int(documents.bytes[document]),
        "bpb": bpb,
        "text": decoded[:WORST_CHARACTERS],
    }
