"""`pygolf download` through the real hub client, against a local server that speaks the hub's protocol."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest

from pygolf.data.bundled import BUNDLED
from pygolf.data.dataset import TOKENIZER_NAME
from pygolf.data.download import REPO_ID
from pygolf.data.shards import write_shard

REVISION = "0123456789abcdef0123456789abcdef01234567"
SLOW_SHARD = "fineweb_train_000001.bin"


class HubServer(ThreadingHTTPServer):
    """Serves the files under `root` as a dataset repository."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.gets: list[tuple[str, int]] = []
        """(file name, first byte) of every download."""
        self.stall = threading.Event()
        """While it is set, the slow shard stops in its middle."""
        self.spoil = ""
        """Name of a file whose last byte is changed on the way."""


class Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.serve(with_body=False)

    def do_GET(self) -> None:
        if self.path.startswith(f"/api/datasets/{REPO_ID}"):
            self.answer_json({"id": REPO_ID, "sha": REVISION, "private": False, "tags": [], "siblings": []})
        else:
            self.serve(with_body=True)

    def do_POST(self) -> None:
        assert self.path == f"/api/datasets/{REPO_ID}/paths-info/{REVISION}"
        length = int(self.headers["Content-Length"])
        paths = parse_qs(self.rfile.read(length).decode())["paths"]
        self.answer_json([self.info(path) for path in paths if (self.server.root / path).is_file()])

    def info(self, path: str) -> dict[str, Any]:
        data = (self.server.root / path).read_bytes()
        entry = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        lfs = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return {**entry, "lfs": lfs} if path.endswith(".bin") else entry

    def answer_json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def serve(self, *, with_body: bool) -> None:
        found = re.fullmatch(rf"/datasets/{REPO_ID}/resolve/{REVISION}/(.+)", self.path)
        if found is None:
            self.send_error(404)
            return
        path = self.server.root / found[1]
        data = path.read_bytes()
        begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if begin else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Content-Length", str(len(data) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if not with_body:
            return
        self.server.gets.append((path.name, begin))
        if path.name == self.server.spoil:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if path.name == SLOW_SHARD and self.server.stall.is_set():
            self.wfile.write(data[begin : len(data) // 2])
            while self.server.stall.is_set():
                time.sleep(0.05)
            return
        self.wfile.write(data[begin:])


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    root = tmp_path / "hub"
    shards = root / "datasets/datasets/fineweb10B_sp1024"
    shards.mkdir(parents=True)
    (root / "datasets/tokenizers").mkdir()
    shutil.copyfile(BUNDLED / TOKENIZER_NAME, root / "datasets/tokenizers/fineweb_1024_bpe.model")
    tokens = np.random.default_rng(0).integers(0, 1024, 12_000_000)  # 24 MB: more than the client's chunk of 10 MiB
    write_shard(shards / "fineweb_train_000000.bin", tokens[:1000])
    write_shard(shards / SLOW_SHARD, tokens)
    write_shard(shards / "fineweb_val_000000.bin", tokens[:500])
    dataset = {"name": "fineweb10B_sp1024", "tokenizer_name": "bpe", "stats": {"files_train": 2, "files_val": 1}}
    tokenizer = {"name": "bpe", "model_path": "tokenizers/fineweb_1024_bpe.model"}
    (root / "datasets/manifest.json").write_text(json.dumps({"datasets": [dataset], "tokenizers": [tokenizer]}))
    server = HubServer(root)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.stall.clear()
    server.shutdown()
    server.server_close()


def start(hub: HubServer, out: Path) -> subprocess.Popen[str]:
    """The command as a user starts it, with the hub's address changed by the hub client's own variable."""
    environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}", "HF_HUB_DISABLE_XET": "1"}
    environment["HF_HOME"] = str(hub.root.parent / "home")
    command = [sys.executable, "-m", "pygolf", "download", "sp1024", "--train-shards", "2", "--out", str(out)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=hub.root.parent
    )


def test_a_killed_download_goes_on_in_the_middle_of_a_shard(hub: HubServer, tmp_path: Path) -> None:
    hub.stall.set()
    killed = start(hub, tmp_path / "data")
    deadline = time.monotonic() + 60
    while not any(p.stat().st_size > 1 << 20 for p in tmp_path.glob("data/.download/*/*.bin")):
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline, hub.gets
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    hub.stall.clear()
    hub.gets.clear()
    output, log = start(hub, tmp_path / "data").communicate(timeout=120)
    assert "12,001,000 training and 500 validation tokens" in output, log
    assert "download" in log
    assert "100 %" in log
    begun = {name: begin for name, begin in hub.gets}
    assert begun[SLOW_SHARD] > 1 << 20  # what had come was not sent again
    assert set(begun) == {"manifest.json", SLOW_SHARD}  # nor was any whole file
    for path in (tmp_path / "data").glob("*.bin"):
        assert path.read_bytes() == (hub.root / "datasets/datasets/fineweb10B_sp1024" / path.name).read_bytes()


def test_a_changed_byte_is_found(hub: HubServer, tmp_path: Path) -> None:
    hub.spoil = "fineweb_val_000000.bin"
    output, log = start(hub, tmp_path / "data").communicate(timeout=120)
    assert output == ""
    assert "fineweb_val_000000.bin" in log
    assert "removed, run the same command to get it again" in log
    hub.spoil = ""
    assert "500 validation tokens" in start(hub, tmp_path / "data").communicate(timeout=120)[0]
