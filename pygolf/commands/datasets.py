"""Commands that make data folders: shard, download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tyro
from tyro.conf import Positional


def shard(arguments: Sequence[str]) -> None:
    """Makes token shards and a tokenizer from text, jsonl or Parquet files: `shard INPUT... --out DIR`."""

    def command(
        inputs: Positional[tuple[Path, ...]],
        out: Path,
        tokenizer: Path | None = None,
        vocab_size: int = 1024,
        val_inputs: tuple[Path, ...] = (),
        val_fraction: float = 0.01,
        shard_tokens: int = 100_000_000,
        text_field: str = "text",
        strict: bool = False,
        overwrite: bool = False,
        workers: int = 0,
    ) -> None:
        """Makes a data folder.

        Args:
            inputs: .txt or .jsonl files, also .gz, .xz or .zst, .parquet files, or folders of them.
            out: the folder to make; it appears only when it is whole.
            tokenizer: SentencePiece model to use; without one, one is trained.
            vocab_size: pieces of the tokenizer that is trained.
            val_inputs: files for the validation split; without them, val_fraction of the documents.
            val_fraction: share of the documents for validation, drawn by a hash of the text.
            shard_tokens: tokens of a full shard.
            text_field: field of a jsonl line, or column of a Parquet file, that holds the text.
            strict: stop at a broken line or bad UTF-8 instead of counting it.
            overwrite: replace a data folder that is there.
            workers: processes; 0 for one a core.
        """
        from pygolf.data.shards import shard_text
        from pygolf.progress import Reporter

        with Reporter() as reporter:
            index = shard_text(
                inputs,
                out,
                tokenizer=tokenizer,
                vocab_size=vocab_size,
                val_inputs=val_inputs,
                val_fraction=val_fraction,
                shard_tokens=shard_tokens,
                text_field=text_field,
                strict=strict,
                workers=workers,
                overwrite=overwrite,
                progress=reporter.follow,
            )
        print(f"{out}: {index.tokens('train'):,} training and {index.tokens('val'):,} validation tokens")
        for name, count in index.counts.items():
            print(f"  {name}: {count:,}")

    tyro.cli(command, prog="pygolf shard", args=list(arguments))


def download(arguments: Sequence[str]) -> None:
    """Fetches the challenge's published FineWeb shards and tokenizer: `download sp1024 --out DIR`."""

    def command(variant: Positional[str] = "sp1024", out: Path = Path("data"), train_shards: int = 80) -> None:
        """Makes a data folder of published shards; may be stopped and started again.

        Args:
            variant: "sp" and the number of pieces of the tokenizer.
            out: the folder.
            train_shards: training shards, 100 M tokens (200 MB) each.
        """
        from pygolf.data.download import download_fineweb
        from pygolf.progress import Reporter

        with Reporter() as reporter:
            index = download_fineweb(out, variant=variant, train_shards=train_shards, progress=reporter.follow)
        print(f"{out}: {index.tokens('train'):,} training and {index.tokens('val'):,} validation tokens")

    tyro.cli(command, prog="pygolf download", args=list(arguments))
