"""Text in, tokens out: tokenizer, token shards, bundled corpus, downloads and the batch loader."""
