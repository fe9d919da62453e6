"""The corpus inside the package: about 5 MB of public-domain and CC0 text, and a tokenizer trained on it.

bundled/NOTICE names sources and licenses; scripts/make_bundled.py made the files.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import shutil
from functools import cache
from pathlib import Path

from pygolf.data.dataset import INDEX_NAME, SPLITS, TOKENIZER_NAME, DatasetIndex, DatasetWriter, Split
from pygolf.data.find import find_shards, shard_digests
from pygolf.data.folders import replacing_folder
from pygolf.data.tokenizer import Tokenizer
from pygolf.errors import DataError, PygolfError

BUNDLED = Path(__file__).with_name("bundled")
CORPUS_NAME = "corpus.jsonl.xz"
NOTICE_NAME = "NOTICE"


def bundled_texts(split: Split) -> list[str]:
    """The documents of a split ("train" or "val")."""
    with lzma.open(BUNDLED / CORPUS_NAME, "rt", encoding="utf-8") as lines:
        return [values["text"] for values in map(json.loads, lines) if values["split"] == split]


def materialize(out_dir: Path) -> Path:
    """Makes a data folder of the bundled corpus (shards, tokenizer.model, index.json), and returns it.

    A folder that an earlier call has made is checked (every token's hash) and kept, or made anew if it is damaged
    or of another version. Several processes may call this at once.

    Raises DataError if `out_dir` holds anything else, IoError if it cannot be written.
    """
    out_dir = Path(out_dir)
    if _is_whole(out_dir):
        return out_dir
    is_ours = set(_origin_of(out_dir)) == set(_origin())  # damaged, or of another version
    try:
        with replacing_folder(out_dir, marker=INDEX_NAME, overwrite=is_ours) as folder:
            _write(folder)
    except PygolfError:
        if not _is_whole(out_dir):  # another process may have been first
            raise
    return out_dir


def _write(folder: Path) -> None:
    model = folder / TOKENIZER_NAME
    shutil.copyfile(BUNDLED / TOKENIZER_NAME, model)
    tokenizer = Tokenizer(model)
    counts = {"documents": 0, "text_bytes": 0}
    with DatasetWriter(folder, bos_id=tokenizer.bos_id) as writer:
        for split in SPLITS:
            texts = bundled_texts(split)
            writer.write(split, tokenizer.encode_documents(texts))
            counts["documents"] += len(texts)
            counts["text_bytes"] += sum(len(text.encode()) for text in texts)
        shards = writer.finish()
    DatasetIndex(
        tokenizer_file=TOKENIZER_NAME,
        tokenizer_sha256=tokenizer.digest,
        vocab_size=tokenizer.vocab_size,
        shards=shards,
        inputs=(_origin(),),
        counts=counts,
    ).write(folder)


@cache
def _origin() -> dict[str, str]:
    """Which files a data folder was made from; another version of the package may bundle others."""
    names = (CORPUS_NAME, TOKENIZER_NAME)
    return {name: hashlib.sha256((BUNDLED / name).read_bytes()).hexdigest() for name in names}


def _origin_of(folder: Path) -> dict[str, str]:
    try:
        inputs = DatasetIndex.read(folder).inputs
    except DataError:
        return {}
    return dict(inputs[0]) if len(inputs) == 1 else {}


def _is_whole(folder: Path) -> bool:
    if _origin_of(folder) != _origin():
        return False
    try:
        index = DatasetIndex.read(folder)
        shards = [path for split in SPLITS for path in find_shards(folder, split)]
        digests = dict(zip((path.name for path in shards), shard_digests(shards), strict=True))
        tokenizer = Tokenizer(folder / index.tokenizer_file).digest
    except PygolfError:
        return False
    return digests == {entry.file: entry.sha256 for entry in index.shards} and tokenizer == index.tokenizer_sha256
