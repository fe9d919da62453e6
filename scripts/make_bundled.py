"""Makes the corpus that pygolf bundles: pygolf/data/bundled/{corpus.jsonl.xz, tokenizer.model, NOTICE}.

usage: python scripts/make_bundled.py DOCUMENTS.jsonl.xz pygolf/data/bundled

DOCUMENTS has a line a document with the fields text, source, license and origin. Only the public-domain and CC0
sources in SOURCES are taken. The same input gives the same files: documents are drawn in the order of a hash of
their text, about the same number of bytes from every source that has enough.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pygolf.data.bundled import CORPUS_NAME, NOTICE_NAME
from pygolf.data.dataset import TOKENIZER_NAME
from pygolf.data.tokenizer import train_tokenizer

TOTAL_BYTES = 5_000_000
VAL_BYTES = 200_000
VOCAB_SIZE = 1024


class Source(NamedTuple):
    """A source of text that may be passed on without conditions."""

    license: str
    stated_in: str


SOURCES = {
    "classic-books-markdown": Source(
        "Public domain (author died before 1931)",
        'README of github.com/mlschmitt/classic-books-markdown: "All titles from the public domain"',
    ),
    "digital.gov": Source("CC0-1.0 / US government work", "LICENSE.md of github.com/GSA/digitalgov.gov"),
    "18F blog": Source("US public domain / CC0-1.0", "LICENSE.md of github.com/18F/18f.gsa.gov"),
    "US presidential addresses": Source(
        "US government work (public domain)", "package XML of nltk_data's state_union and inaugural corpora"
    ),
    "CIA World Factbook": Source("CC0-1.0 / US government work", "LICENSE.md of github.com/factbook/factbook.json"),
}
BOOKS = "classic-books-markdown"


class Document(NamedTuple):
    """A line of the input."""

    text: str
    source: str
    origin: str

    @property
    def size(self) -> int:
        """UTF-8 bytes."""
        return len(self.text.encode())

    @property
    def hash(self) -> str:
        """What documents are ordered by."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_documents(path: Path) -> list[Document]:
    """Documents of the allowed sources, each text once, in the order of their hashes."""
    documents: dict[str, Document] = {}
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for values in map(json.loads, lines):
            source = SOURCES.get(values["source"])
            if source is None:
                continue
            if values["license"] != source.license:
                raise SystemExit(f"{values['origin']}: license {values['license']!r}, expected {source.license!r}")
            document = Document(values["text"], values["source"], values["origin"])
            documents[document.hash] = document
    return [documents[key] for key in sorted(documents)]


def even_quotas(available: dict[str, int], total: int) -> dict[str, int]:
    """Shares the total as evenly as the sources allow: a source gives all it has or as much as the largest share."""
    quotas: dict[str, int] = {}
    for left, (source, size) in zip(
        range(len(available), 0, -1), sorted(available.items(), key=lambda item: item[1]), strict=True
    ):
        quotas[source] = min(size, (total - sum(quotas.values())) // left)
    return quotas


def choose(documents: Iterable[Document], quotas: dict[str, int]) -> list[Document]:
    """Documents in their order, as long as they fit into their source's quota of bytes."""
    left = dict(quotas)
    chosen = []
    for document in documents:
        if document.size <= left[document.source]:
            left[document.source] -= document.size
            chosen.append(document)
    return chosen


def sizes(documents: Iterable[Document]) -> dict[str, int]:
    """Bytes of each source."""
    result = dict.fromkeys(SOURCES, 0)
    for document in documents:
        result[document.source] += document.size
    return result


def write_corpus(path: Path, chosen: list[Document], val: set[Document]) -> None:
    """Writes the documents with license and split, a JSON object a line."""
    with lzma.open(path, "wt", encoding="utf-8", preset=9 | lzma.PRESET_EXTREME) as stream:
        for document in chosen:
            values = {
                "text": document.text,
                "source": document.source,
                "license": SOURCES[document.source].license,
                "split": "val" if document in val else "train",
            }
            stream.write(json.dumps(values, ensure_ascii=False) + "\n")


def notice(chosen: list[Document], val: set[Document]) -> str:
    """The text that goes with the corpus: sources, licenses, what was done."""
    size, counts = sizes(chosen), {source: 0 for source in SOURCES}
    for document in chosen:
        counts[document.source] += 1
    books = {document.origin.removesuffix(".md").strip() for document in chosen if document.source == BOOKS}
    lines = [
        "The text that pygolf bundles",
        "============================",
        "",
        f"{CORPUS_NAME} holds {len(chosen)} English documents, {sum(size.values()):,} bytes of UTF-8 text.",
        f"{len(val)} of them, {sum(document.size for document in val):,} bytes, are the validation split.",
        "All of it is in the public domain or under CC0 1.0: it may be used, changed and passed on freely.",
        "",
        "What was done to the texts: markup, figures, tables and citations were removed, long texts were cut into",
        "pieces, pieces were chosen by a hash of their text, evenly over the sources, and put in the order of that",
        "hash (scripts/make_bundled.py). The texts are therefore not complete and not a reliable edition.",
        "",
        f"{TOKENIZER_NAME} was trained on the training documents alone.",
        "",
        "Sources",
        "-------",
    ]
    for name, source in SOURCES.items():
        lines.append(f"- {name}: {counts[name]} documents, {size[name]:,} bytes. {source.license}.")
        lines.append(f"  Stated in: {source.stated_in}.")
    lines += ["", "Books that excerpts were taken from", "-----------------------------------"]
    lines += [f"- {book.replace('/', ': ')}" for book in sorted(books)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Reads the arguments and writes the three files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path, help="xz-compressed jsonl with text, source, license and origin")
    parser.add_argument("out", type=Path, help="folder for corpus, tokenizer and NOTICE")
    args = parser.parse_args()
    documents = read_documents(args.documents)
    chosen = choose(documents, even_quotas(sizes(documents), TOTAL_BYTES))
    share = VAL_BYTES / TOTAL_BYTES
    val = set(choose(chosen, {source: round(size * share) for source, size in sizes(chosen).items()}))
    args.out.mkdir(parents=True, exist_ok=True)
    write_corpus(args.out / CORPUS_NAME, chosen, val)
    (args.out / NOTICE_NAME).write_text(notice(chosen, val), encoding="utf-8")
    train_texts = [document.text for document in chosen if document not in val]
    tokenizer = train_tokenizer(train_texts, VOCAB_SIZE, args.out / TOKENIZER_NAME)
    print(f"{len(chosen)} documents, {len(val)} of them for validation; tokenizer {tokenizer.digest[:16]}")


if __name__ == "__main__":
    main()
