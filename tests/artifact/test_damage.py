"""Damaged and hostile artifacts, and a disk that is full: an error of pygolf's, never a crash or a wrong value."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import zstandard

from pygolf._core import ArtifactReader, ArtifactWriter, FormatError, IoError, PygolfError

Fill = Callable[[ArtifactWriter], dict[str, np.ndarray]]

GOLDEN = Path(__file__).parent.parent / "golden"


def read_everything(path: Path) -> dict[str, bytes]:
    reader = ArtifactReader(path)
    return {tensor.name: reader.dequantize(tensor.name).tobytes() for tensor in reader.tensors}


def is_refused(path: Path) -> bool:
    try:
        read_everything(path)
    except PygolfError:
        return True
    return False


@pytest.fixture
def path(tmp_path: Path, fill: Fill) -> Path:
    """A small artifact with a tensor of every kind."""
    writer = ArtifactWriter('{"manifest": "of a small artifact"}')
    codes, logs = np.arange(-60, 60, dtype=np.int16).reshape(6, 20), np.arange(20, dtype=np.int16)
    for states in (1, 8):
        writer.add_factors(f"factors.{states}", codes, logs[:6], logs, step=0.5, states=states)
    fill(writer)
    writer.write(tmp_path / "model.golf")
    return tmp_path / "model.golf"


def test_every_changed_byte_is_noticed(path: Path) -> None:
    assert not is_refused(path)
    with path.open("r+b", buffering=0) as file:
        for position, byte in enumerate(path.read_bytes()):
            for flip in (0x01, 0x80, 0xFF):
                os.pwrite(file.fileno(), bytes([byte ^ flip]), position)
                assert is_refused(path), (position, flip)
            os.pwrite(file.fileno(), bytes([byte]), position)
    assert not is_refused(path)


def test_every_truncation_is_noticed(path: Path) -> None:
    for size in reversed(range(path.stat().st_size)):
        os.truncate(path, size)
        assert is_refused(path), size


def test_damaged_section_spares_the_other_tensors(path: Path, fill: Fill) -> None:
    file = path.read_bytes()
    path.write_bytes(file[:-1] + bytes([file[-1] ^ 1]))
    values = fill(ArtifactWriter("{}"))
    reader = ArtifactReader(path)
    *others, last = values
    for name in others:
        np.testing.assert_array_equal(reader.dequantize(name), values[name])
    with pytest.raises(FormatError, match=rf"\[A8\] .*model.golf: tensor '{last}', section data: CRC-32 is"):
        reader.dequantize(last)
    with pytest.raises(FormatError, match=r"\[A8\]"):
        reader.check()


def test_hostile_tables_with_right_checksums_do_no_harm(tmp_path: Path, golden: ModuleType) -> None:
    """Tables with a few random bytes: most are refused, the others give whole tensors of the shapes they name."""
    rng = random.Random(0)
    path = tmp_path / "model.golf"
    refused = 0
    for _ in range(1000):
        artifact = golden.good()
        table = bytearray(artifact.table())
        for _ in range(rng.randint(1, 3)):
            table[rng.randrange(len(table))] = rng.choice([0, 1, 2, 3, 4, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        artifact.table = lambda table=table: bytes(table)
        path.write_bytes(artifact.serialize())
        refused += is_refused(path)
    assert 800 < refused < 1000


def test_hostile_frames_with_right_checksums_do_no_harm(tmp_path: Path, golden: ModuleType) -> None:
    rng = random.Random(0)
    path = tmp_path / "model.golf"
    codes = np.random.default_rng(0).normal(0, 4, (2, 5000)).round().astype(np.int8).tobytes()
    whole = zstandard.ZstdCompressor(level=22).compress(codes)
    for _ in range(500):
        frame = bytearray(whole)
        frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
        tensor = golden.rows(b"w", golden.BYTES_ZSTD, bytes(frame))
        tensor.shape = (2, 5000)
        path.write_bytes(golden.Artifact([tensor]).serialize())
        is_refused(path)


READ_WITH_LITTLE_MEMORY = """
import resource, sys
from pygolf._core import ArtifactReader, PygolfError
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (48 << 20), resource.RLIM_INFINITY))
for path in sys.argv[1:]:
    try:
        ArtifactReader(path).check(threads=1)
    except PygolfError:
        print("refused", path)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_bombs_take_little_memory(tmp_path: Path, golden: ModuleType) -> None:
    """Frames of 64 MiB behind small shapes, and every golden bad file, within 48 MiB."""
    bomb = zstandard.compress(bytes(64 << 20))
    small = golden.with_section(golden.BYTES_ZSTD, bomb)()
    manifest = golden.changed(manifest_frame=bomb)()
    paths = [tmp_path / "section.golf", tmp_path / "manifest.golf", *GOLDEN.glob("bad/*.golf")]
    paths[0].write_bytes(small.serialize())
    paths[1].write_bytes(manifest.serialize())
    command = [sys.executable, "-c", READ_WITH_LITTLE_MEMORY, *map(str, paths)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output.splitlines() == [f"refused {path}" for path in paths]


WRITE_TO_A_FULL_DISK = """
import resource, sys
import numpy as np
from pygolf._core import ArtifactWriter, IoError
writer = ArtifactWriter("{}")
writer.add_dense("x", np.random.default_rng(0).random(50_000).astype(np.float32), "float32")
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))  # writes fail above, as on a full disk
try:
    writer.write(sys.argv[1])
except IoError as error:
    print(error)
"""


def test_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.golf"
    path.write_bytes(b"the old file")
    command = [sys.executable, "-c", WRITE_TO_A_FULL_DISK, str(path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert f"cannot write {path}: File too large" in output
    assert "bytes were left to write, free some space" in output
    assert path.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    writer = ArtifactWriter("{}")
    with pytest.raises(IoError, match=r"No such file or directory.*does the folder exist"):
        writer.write(tmp_path / "missing" / "model.golf")
    with pytest.raises(IoError, match="it exists and is not a regular file"):
        writer.write(tmp_path)
    with pytest.raises(IoError, match="it exists and is not a regular file"):
        writer.write("/dev/full")
    assert list(tmp_path.iterdir()) == []


def test_open_reader_survives_a_new_file(path: Path) -> None:
    before = read_everything(path)
    reader = ArtifactReader(path)
    ArtifactWriter("new").write(path)
    assert {name: reader.dequantize(name).tobytes() for name in before} == before
    assert ArtifactReader(path).manifest == "new"
