"""Token shards from text files (`pygolf shard`).

A data folder holds shards named `*train_*.bin` and `*val_*.bin` beside the tokenizer that made them.
"""

from __future__ import annotations

import heapq
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pygolf.data.dataset import INDEX_NAME, SHARD_TOKENS, TOKENIZER_NAME, DatasetIndex, DatasetWriter
from pygolf.data.documents import Counts, Record, TextFile, find_text_files, open_text_file, read_records
from pygolf.data.folders import replacing_folder
from pygolf.data.shard_file import MAX_SHARD_TOKENS, ShardWriter
from pygolf.data.tokenizer import Tokenizer, train_tokenizer
from pygolf.data.workers import Batch, Reading, split_documents, text_hash, tokenize_all
from pygolf.errors import DataError
from pygolf.files import replacing

Sources = list[tuple[TextFile, float]]
"""Input files, each with the share of its documents that is for validation."""
Progress = Callable[[str, int, int], None]
"""Called with what is being done ("tokenizer" or "shards"), bytes of the input files read, and bytes in
all."""

TOKENIZER_SAMPLE_BYTES = 64_000_000
"""Text that a tokenizer is trained on at most; the trainer holds several times as much in memory."""

_BATCH_BYTES = 1 << 20
_BYTES_WORTH_A_WORKER = 4 << 20  # starting a process costs as much as reading this many bytes


def write_shard(path: Path, tokens: NDArray[np.integer[Any]]) -> None:
    """Writes tokens [n] to a shard file, whole or not at all.

    Raises DataError if they are not 1 to 2^31 - 1 integers of 16 bits, IoError if the file cannot be written.
    """
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise DataError(f"{path}: tokens are {tokens.dtype} {list(tokens.shape)}, expected integers [n]")
    if not 0 < tokens.size <= MAX_SHARD_TOKENS:
        raise DataError(f"{path}: {tokens.size} tokens, expected 1 to {MAX_SHARD_TOKENS} in a shard")
    if tokens.min() < 0 or tokens.max() > 65_535:
        raise DataError(f"{path}: token ids from {tokens.min()} to {tokens.max()}, expected 0 to 65535")
    with replacing(Path(path)) as temporary, ShardWriter(temporary) as shard:
        shard.write(tokens.astype(np.uint16, copy=False))


def shard_text(
    inputs: Sequence[Path],
    out_dir: Path,
    *,
    tokenizer: Path | None = None,
    vocab_size: int = 1024,
    val_inputs: Sequence[Path] = (),
    val_fraction: float = 0.01,
    shard_tokens: int = SHARD_TOKENS,
    text_field: str = "text",
    strict: bool = False,
    workers: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DatasetIndex:
    """Makes a data folder from text files: tokenizer.model, train_*.bin, val_*.bin and index.json.

    Each document is BOS and its tokens; documents stay in the order of the inputs. The folder appears only
    when it is whole, and its bytes depend on the inputs and settings alone, not on the number of workers.

    Args:
        inputs: .txt files (documents between lines that hold only 0x1E; without one, a file is a document),
            .jsonl files (a line is an object with a text), both also as .gz, .xz or .zst, .parquet files (a row has a
            text; needs pyarrow), or folders of them.
        out_dir: the folder to make.
        tokenizer: a SentencePiece model to use; without one, a tokenizer of `vocab_size` pieces is trained on
            the training documents (on a sample of them above 64 MB).
        val_inputs: files whose documents are the validation split; with them, `inputs` is all for training.
        val_fraction: without `val_inputs`, the share of documents for validation, drawn by a hash of each.
        shard_tokens: tokens of a full shard.
        text_field: field of a jsonl line, or column of a Parquet file, that holds the text.
        strict: whether a broken line or bad UTF-8 is an error; else broken lines are left out, bad bytes
            become U+FFFD, and both are counted.
        workers: processes; 0 for one a core (and no more than the inputs are worth).
        overwrite: whether a data folder that is there may be replaced.
        progress: called about once a MiB of text.

    Raises:
        DataError: an input is missing, damaged, or broken under `strict`; a split is empty; the folder is taken.
        IoError: the folder cannot be written.
    """
    _check_settings(val_fraction, shard_tokens, workers)
    sources = _sources(inputs, val_inputs, val_fraction)
    reading = Reading(text_field, strict)
    with replacing_folder(Path(out_dir), marker=INDEX_NAME, overwrite=overwrite) as folder:
        model = folder / TOKENIZER_NAME
        if tokenizer is None:
            batches = _read_batches(sources, "tokenizer", text_field, progress)
            train_tokenizer(_sample(batches, reading), vocab_size, model)
        else:
            Tokenizer(tokenizer)  # says what is wrong with it, by the name that the user knows
            shutil.copyfile(tokenizer, model)
        workers = workers or _workers_for(sources)
        index = _write_shards(folder, sources, reading, shard_tokens, workers, progress)
        _check_splits(index, sources)
        index.write(folder)
    return index


def _check_settings(val_fraction: float, shard_tokens: int, workers: int) -> None:
    if not 0 <= val_fraction < 1:
        raise DataError(f"val_fraction is {val_fraction}, expected 0 or more and below 1")
    if not 1 <= shard_tokens <= MAX_SHARD_TOKENS:
        raise DataError(f"shard_tokens is {shard_tokens}, expected 1 to {MAX_SHARD_TOKENS}")
    if workers < 0:
        raise DataError(f"workers is {workers}, expected a number of processes, or 0 for one a core")


def _sources(inputs: Sequence[Path], val_inputs: Sequence[Path], val_fraction: float) -> Sources:
    fraction = 0.0 if val_inputs else val_fraction
    sources = [(file, fraction) for file in find_text_files(inputs)]
    sources += [(file, 1.0) for file in find_text_files(val_inputs)]
    if not sources:
        raise DataError("no input files; name .txt or .jsonl files, or folders that hold them")
    return sources


def _read_batches(sources: Sources, stage: str, field: str, progress: Progress | None) -> Iterator[Batch]:
    total, before = sum(file.path.stat().st_size for file, _ in sources), 0
    for file, val_fraction in sources:
        with open_text_file(file) as raw:
            for records in _grouped(read_records(file, raw, field)):
                if progress is not None:
                    progress(stage, before + raw.tell(), total)
                yield Batch(file, val_fraction, records)
            before += raw.tell()


def _grouped(records: Iterable[Record]) -> Iterator[list[Record]]:
    group: list[Record] = []
    size = 0
    for record in records:
        group.append(record)
        size += len(record.data or b"")
        if size >= _BATCH_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _sample(batches: Iterable[Batch], reading: Reading) -> list[str]:
    """Training documents for the tokenizer: the TOKENIZER_SAMPLE_BYTES with the least hashes, or all."""
    kept: list[tuple[int, bytes]] = []  # a heap with the greatest hash on top
    size = 0
    for batch in batches:
        for split, document in split_documents(batch, reading, Counts()):
            if split == "val":
                continue
            heapq.heappush(kept, (-text_hash(document), document))
            size += len(document)
            while size > TOKENIZER_SAMPLE_BYTES:
                size -= len(heapq.heappop(kept)[1])
    return [document.decode() for _, document in sorted(kept)]


def _write_shards(
    folder: Path,
    sources: Sources,
    reading: Reading,
    shard_tokens: int,
    workers: int,
    progress: Progress | None,
) -> DatasetIndex:
    model = Tokenizer(folder / TOKENIZER_NAME)
    counts = Counts()
    batches = _read_batches(sources, "shards", reading.text_field, progress)
    results = tokenize_all(batches, model.path, reading, workers)
    with DatasetWriter(folder, bos_id=model.bos_id, shard_tokens=shard_tokens) as writer, closing(results):
        for result in results:
            counts.add(result.counts)
            for split, tokens in result.tokens.items():
                writer.write(split, tokens)
        shards = writer.finish()
    return DatasetIndex(
        tokenizer_file=TOKENIZER_NAME,
        tokenizer_sha256=model.digest,
        vocab_size=model.vocab_size,
        shards=shards,
        inputs=tuple(_input_entry(file, val_fraction) for file, val_fraction in sources),
        counts=asdict(counts),
    )


def _input_entry(file: TextFile, val_fraction: float) -> dict[str, Any]:
    return {"file": str(file.path), "bytes": file.path.stat().st_size, "val_fraction": val_fraction}


def _check_splits(index: DatasetIndex, sources: Sources) -> None:
    found = f"{index.counts['documents']} documents"
    if any(val_fraction < 1 for _, val_fraction in sources) and not index.tokens("train"):
        raise DataError(f"no document for training among {found}; check the inputs, or lower val_fraction")
    if any(val_fraction > 0 for _, val_fraction in sources) and not index.tokens("val"):
        raise DataError(
            f"no document for validation among {found}; raise val_fraction, or name files for it (val_inputs)"
        )


def _workers_for(sources: Sources) -> int:
    size = sum(file.path.stat().st_size for file, _ in sources)
    return max(1, min(_cores(), size // _BYTES_WORTH_A_WORKER))


def _cores() -> int:
    return len(os.sched_getaffinity(0))
