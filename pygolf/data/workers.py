"""Turns batches of records into tokens, in this process or in several.

Batches go out and come back in order and only a few are under way, so the result does not depend on the
number of processes and memory stays bounded. A worker parses, splits and tokenizes; the reading process only
finds records.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pygolf.data.dataset import SPLITS, Split
from pygolf.data.documents import Counts, Record, TextFile, documents_of
from pygolf.data.tokenizer import Tokenizer
from pygolf.errors import DataError

_BATCHES_AHEAD = 3  # a worker; enough that none waits while the reader is between two files


@dataclass(frozen=True)
class Reading:
    """How records become documents."""

    text_field: str
    """Field of a jsonl line that holds its text."""
    strict: bool
    """Whether a broken line or bad UTF-8 is an error."""


class Batch(NamedTuple):
    """Records of one file."""

    source: TextFile
    val_fraction: float
    """Share of the documents that goes to the validation split."""
    records: list[Record]


class BatchTokens(NamedTuple):
    """Tokens of a batch's documents, BOS before each."""

    tokens: dict[Split, NDArray[np.uint16]]
    counts: Counts


def split_documents(batch: Batch, reading: Reading, counts: Counts) -> Iterator[tuple[Split, bytes]]:
    """The documents of a batch and the split of each, which depends on nothing but the document's text.

    A document is for validation if its 64-bit BLAKE2b hash is below val_fraction * 2^64; so a text that
    occurs twice is never in both splits.
    """
    threshold = int(batch.val_fraction * 2.0**64)
    for record in batch.records:
        for document in documents_of(record, batch.source, reading.text_field, reading.strict, counts):
            yield ("val" if text_hash(document) < threshold else "train"), document


def text_hash(document: bytes) -> int:
    """64-bit hash of a text, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(document, digest_size=8).digest(), "big")


def tokenize(batch: Batch, tokenizer: Tokenizer, reading: Reading) -> BatchTokens:
    """Tokens of a batch."""
    texts: dict[Split, list[str]] = {split: [] for split in SPLITS}
    counts = Counts()
    for split, document in split_documents(batch, reading, counts):
        texts[split].append(document.decode())
    return BatchTokens({split: tokenizer.encode_documents(texts[split]) for split in SPLITS}, counts)


def tokenize_all(
    batches: Iterator[Batch], tokenizer: Path, reading: Reading, workers: int
) -> Generator[BatchTokens, None, None]:
    """Tokens of all batches in order, made by `workers` processes; 1 stands for this process.

    Raises what `tokenize` raises, and DataError if a worker dies.
    """
    if workers == 1:
        here = Tokenizer(tokenizer)
        yield from (tokenize(batch, here, reading) for batch in batches)
        return
    try:
        yield from _tokenize_in_pool(batches, tokenizer, reading, workers)
    except BrokenProcessPool as error:
        raise DataError(f"a worker process died ({error}); if memory ran out, use fewer workers") from error


def _tokenize_in_pool(
    batches: Iterator[Batch], tokenizer: Path, reading: Reading, workers: int
) -> Iterator[BatchTokens]:
    pending: deque[Future[BatchTokens]] = deque()
    pool = ProcessPoolExecutor(
        max_workers=workers,
        mp_context=multiprocessing.get_context("spawn"),  # a fork would copy torch's threads in mid-flight
        initializer=_start_worker,
        initargs=(tokenizer, reading),
    )
    try:
        for batch in batches:
            pending.append(pool.submit(_tokenize_in_worker, batch))
            if len(pending) >= _BATCHES_AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


_worker: tuple[Tokenizer, Reading]


def _start_worker(tokenizer: Path, reading: Reading) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _worker = (Tokenizer(tokenizer), reading)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _tokenize_in_worker(batch: Batch) -> BatchTokens:
    return tokenize(batch, *_worker)
