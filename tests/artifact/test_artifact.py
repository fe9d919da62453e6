"""Artifact writer and reader from Python: values, views, determinism, and arguments that cannot be right."""

from __future__ import annotations

import gc
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import zstandard
from entropy_reference import Trellis

from pygolf._core import ArgumentError, ArtifactReader, ArtifactWriter, coded_bytes

Fill = Callable[[ArtifactWriter], dict[str, np.ndarray]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.golf"


def test_values_come_back(path: Path, fill: Fill) -> None:
    writer = ArtifactWriter('{"made": "für diesen Test"}')
    values = fill(writer)
    size = writer.write(path)
    reader = ArtifactReader(path)
    assert size == path.stat().st_size == reader.file_bytes
    assert reader.path == path
    assert reader.manifest == '{"made": "für diesen Test"}'
    assert [tensor.name for tensor in reader.tensors] == list(values)
    for name, expected in values.items():
        found = reader.dequantize(name)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(reader.dense("float16.zstd"), values["float16.zstd"].astype(np.float16))
    assert reader.dense("bfloat16.raw").dtype == np.uint16
    reader.check()


def test_factors_come_back(path: Path, fill_factors: Fill) -> None:
    writer = ArtifactWriter("{}")
    values = fill_factors(writer)
    writer.write(path)
    reader = ArtifactReader(path)
    for tensor in reader.tensors:
        np.testing.assert_array_equal(reader.dequantize(tensor.name), values[tensor.name])
        codes, row_logs, col_logs = (
            reader.codes(tensor.name),
            reader.row_logs(tensor.name),
            reader.col_logs(tensor.name),
        )
        assert (codes.dtype, row_logs.dtype, col_logs.dtype) == (np.int16, np.int16, np.int16)
        assert (tensor.encoding, tensor.bits, tensor.step) == ("factors", None, np.float32(0.0375))
        if tensor.codec == "entropy":
            for threads in (1, 3):
                assert coded_bytes(codes, row_logs, col_logs, tensor.states, threads) == tensor.stored_bytes
    writer = ArtifactWriter("{}")
    copy = reader.codes("factors.8.zstd")
    writer.add_factors("again", copy, row_logs, col_logs, step=tensor.step, states=8, codec="raw")
    writer.write(path)
    np.testing.assert_array_equal(ArtifactReader(path).dequantize("again"), values["factors.8.zstd"])


def test_the_trellis_is_a_context() -> None:
    """Codes 2, 3 and 4 of quantizer 0 are -2, -3 and -4 of quantizer 1: who does not know which pays a bit a code."""
    codes = np.random.default_rng(0).integers(2, 5, (512, 128)).astype(np.int16)
    for row in codes:
        trellis = Trellis(8)
        for i, code in enumerate(row.tolist()):
            row[i] = -code if trellis.quantizer(0) else code
            trellis.advance(code, 0)
    logs = np.zeros(512, np.int16)
    known, unknown = (coded_bytes(codes, logs, logs[:128], states) for states in (8, 1))
    assert known < unknown - 0.95 * codes.size / 8


def test_tensor_info_describes_the_file(path: Path, fill: Fill) -> None:
    writer = ArtifactWriter("{}")
    fill(writer)
    writer.write(path)
    tensors = {tensor.name: tensor for tensor in ArtifactReader(path).tensors}
    rows, dense = tensors["rows.bitpack"], tensors["float32.raw"]
    assert (rows.shape, rows.encoding, rows.dtype, rows.bits, rows.codec) == ((5, 101), "rows", None, 3, "bitpack")
    assert (dense.shape, dense.encoding, dense.dtype, dense.bits) == ((2, 3, 3, 5), "dense", "float32", None)
    assert rows.stored_bytes == 10 + -(-5 * 101 * 3 // 8)
    content = path.read_bytes()
    end = min(offset for tensor in tensors.values() for _, _, offset, _, _ in tensor.sections)
    for tensor in tensors.values():
        for _, _, offset, stored, crc in tensor.sections:
            assert offset == end
            assert crc == zlib.crc32(content[offset : offset + stored])
            end = offset + stored
    assert end == len(content)


def test_bytes_follow_the_specification(golden: ModuleType) -> None:
    """The writer's file, taken apart by FORMAT.md with struct, zlib and zstandard only."""
    writer = ArtifactWriter('{"a": 1}')
    codes = np.array(golden.CODES_2x5, np.int8)
    scales = np.array(golden.SCALES_2, np.float16)
    writer.add_rows("w", codes, scales, bits=6, codec="bitpack")
    file = writer.serialize()
    magic, version, reserved, *blocks, size = struct.unpack("<4sHH6IQ", file[:40])
    assert (magic, version, reserved, size) == (b"GOLF", 1, 0, len(file))
    assert struct.unpack("<I", file[40:44])[0] == zlib.crc32(file[:40])
    ends = 44 + np.cumsum([blocks[0], blocks[3]])
    manifest, table, sections = file[44 : ends[0]], file[ends[0] : ends[1]], file[ends[1] :]
    assert blocks[2] == zlib.crc32(manifest)
    assert blocks[5] == zlib.crc32(table)
    assert zstandard.decompress(manifest) == b'{"a": 1}'
    assert sections == golden.SCALES_BYTES + golden.CODES_PACKED
    expected = golden.Artifact([golden.rows(b"w", golden.BITPACK, golden.CODES_PACKED)]).table()
    assert zstandard.decompress(table) == expected
    assert blocks[4] == len(expected)


@pytest.mark.parametrize("codec", ["zstd", "raw"])
def test_zstd_stores_byte_planes_and_falls_back_to_raw(path: Path, codec: str) -> None:
    numbers = np.linspace(1, 2, 999, dtype=np.float16)
    writer = ArtifactWriter("{}")
    writer.add_dense("large", numbers, codec=codec)
    writer.add_dense("small", numbers[:3], codec=codec)
    writer.write(path)
    large, small = ArtifactReader(path).tensors
    assert (large.codec, small.codec) == (codec, "raw")
    ((_, _, offset, stored, _),) = large.sections
    section = path.read_bytes()[offset : offset + stored]
    if codec == "zstd":
        planes = np.frombuffer(zstandard.decompress(section), np.uint8).reshape(2, 999)
        assert planes.T.tobytes() == numbers.tobytes()
    else:
        assert section == numbers.tobytes()


def test_bytes_do_not_depend_on_threads_or_run(fill: Fill) -> None:
    def serialize(threads: int) -> bytes:
        writer = ArtifactWriter("{}")
        fill(writer)
        return writer.serialize(threads=threads)

    first = serialize(1)
    assert serialize(1) == serialize(2) == serialize(7) == serialize(0) == first


def test_raw_sections_are_views_that_keep_the_map_alive(path: Path) -> None:
    codes = np.arange(-120, 120, dtype=np.int8).reshape(8, 30)
    writer = ArtifactWriter("{}")
    writer.add_rows("raw", codes, np.ones(8, np.float16), bits=8, codec="raw")
    writer.add_rows("packed", codes, np.ones(8, np.float16), bits=8, codec="bitpack")
    writer.write(path)
    reader = ArtifactReader(path)
    view, copy = reader.codes("raw"), reader.codes("packed")
    assert isinstance(view.base, ArtifactReader)
    assert not view.flags.writeable
    assert not copy.flags.writeable
    assert reader.codes("raw").ctypes.data == view.ctypes.data
    del reader
    gc.collect()
    path.unlink()
    np.testing.assert_array_equal(view, codes)
    np.testing.assert_array_equal(copy, codes)


def test_arrays_are_aligned_wherever_the_section_lies(path: Path) -> None:
    """A view of a section at an odd offset would be an unaligned array; such a section is copied."""
    numbers = np.arange(9, dtype=np.float32)
    writer = ArtifactWriter("{}")
    for i in range(8):
        writer.add_dense(f"{i}", numbers, "float32", "raw")
        writer.add_rows(f"shift{i}", np.ones((1, 1), np.int8), np.ones(1, np.float16), codec="raw")  # 3 bytes
    writer.write(path)
    reader = ArtifactReader(path)
    views = set()
    for i in range(8):
        array = reader.dense(f"{i}")
        assert array.flags.aligned
        assert not array.flags.writeable
        np.testing.assert_array_equal(array, numbers)
        views.add(isinstance(array.base, ArtifactReader))
    assert views == {True, False}


def test_other_threads_run_while_a_file_is_packed() -> None:
    """Held through serialize(), the GIL would stop this thread's clock for most of that time."""
    writer = ArtifactWriter("{}")
    codes = np.random.default_rng(0).integers(-31, 32, (512, 2048)).astype(np.int8)
    writer.add_rows("w", codes, np.ones(512, np.float16))
    packer = threading.Thread(target=writer.serialize, kwargs={"threads": 1})
    packer.start()
    start = last = time.perf_counter()
    longest_pause = 0.0
    while packer.is_alive():
        now = time.perf_counter()
        longest_pause, last = max(longest_pause, now - last), now
    assert longest_pause < 0.5 * (last - start)


def test_writer_refuses_what_the_format_cannot_hold() -> None:
    writer = ArtifactWriter("{}")
    codes, scales = np.zeros((2, 3), np.int8), np.ones(2, np.float16)
    writer.add_rows("there", codes, scales)

    def rows(
        name: str = "w", codes: np.ndarray = codes, scales: np.ndarray = scales, **options: Any
    ) -> Callable[[], None]:
        return lambda: writer.add_rows(name, codes, scales, **options)

    def dense(array: np.ndarray, **options: Any) -> Callable[[], None]:
        return lambda: writer.add_dense("w", array, **options)

    wide, row_logs, col_logs = codes.astype(np.int16), np.zeros(2, np.int16), np.zeros(3, np.int16)

    def factors(**changes: Any) -> Callable[[], None]:
        arguments = {"codes": wide, "row_logs": row_logs, "col_logs": col_logs, "step": 1.0, **changes}
        return lambda: writer.add_factors("w", **arguments)

    half = np.ones(3, np.float16)
    attempts = {
        "was added before": rows(name="there"),
        "name has 0 bytes": rows(name=""),
        "name has 256 bytes": rows(name="é" * 128),
        "without control characters": rows(name="a\nb"),
        "code 4 is 4, expected a magnitude of at most 3": rows(codes=np.array([[0, 1, 2], [3, 4, 5]], np.int8), bits=3),
        "bits is 9": rows(bits=9),
        "got 6 bytes, expected 4": rows(scales=np.ones(3, np.float16)),
        "scale of row 1 is inf": rows(scales=np.array([1, np.inf], np.float16)),
        "scale of row 0 is -1": rows(scales=np.array([-1, 1], np.float16)),
        "scale of row 0 is nan": rows(scales=np.array([np.nan, 1], np.float16)),
        "codec 'zstd', which is not for codes": rows(codec="zstd"),
        "codec is 'zip', expected one of 'raw', 'bitpack'": rows(codec="zip"),
        "is a float32 array of shape .* expected a C-contiguous int8": rows(codes=codes.astype(np.float32)),
        r"shape \(2, 3\) and strides \(1, 2\), expected a C-contiguous": rows(codes=np.asfortranarray(codes)),
        "scales 2, expected codes": rows(scales=np.ones((2, 1), np.float16)),
        "codec 'bitpack', which is not for data": dense(half, codec="bitpack"),
        "is a float16 array": dense(half, dtype="float32"),
        "dtype is 'int8'": dense(half, dtype="int8"),
        "shape has 0 dimensions": dense(np.zeros((), np.float16)),
        "shape has 5 dimensions": dense(half.reshape(1, 1, 1, 1, 3)),
        "shape has dimension 0": dense(half[:0]),
        "is a int8 array of shape .* expected a C-contiguous int16": factors(codes=codes),
        r"codes have shape \(2, 3\), row_logs \(3,\) and col_logs \(3,\)": factors(row_logs=np.zeros(3, np.int16)),
        "row logarithms are -600 to 0, expected -512 to 511": factors(row_logs=np.array([0, -600], np.int16)),
        "row logarithms are 0 to 256, .* at most 255 apart": factors(row_logs=np.array([0, 256], np.int16)),
        "column logarithms are 0 to 512": factors(col_logs=np.array([0, 0, 512], np.int16)),
        "trellis has 2 states, expected 1, 4 or 8": factors(states=2),
        "step is 0, expected 8.67362e-19 or more": factors(step=0.0),
        "step is nan": factors(step=float("nan")),
        "codec 'bitpack', which is not for codes of encoding 'factors'": factors(codec="bitpack"),
    }
    for pattern, attempt in attempts.items():
        with pytest.raises(ArgumentError, match=pattern):
            attempt()
    with pytest.raises(ArgumentError, match="zstd level is 23, expected 1 to 22"):
        ArtifactWriter("{}", zstd_level=23)
    with pytest.raises(ArgumentError, match="manifest has 16777217 bytes"):
        ArtifactWriter("a" * (2**24 + 1), zstd_level=1).serialize()


def test_reader_names_what_it_has_not(path: Path, fill: Fill) -> None:
    writer = ArtifactWriter("{}")
    fill(writer)
    writer.write(path)
    reader = ArtifactReader(path)
    with pytest.raises(ArgumentError, match=r"model.golf: no tensor 'w' among its 10"):
        reader.dequantize("w")
    with pytest.raises(ArgumentError, match=r"'rows\.raw' has encoding 'rows' and no section 'data'"):
        reader.dense("rows.raw")
    with pytest.raises(ArgumentError, match=r"'float16\.raw' has encoding 'dense' and no section 'codes'"):
        reader.codes("float16.raw")


def test_empty_artifact_is_an_artifact(path: Path) -> None:
    ArtifactWriter("").write(path)
    reader = ArtifactReader(path)
    reader.check()
    assert (reader.manifest, reader.tensors) == ("", [])
