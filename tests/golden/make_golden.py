"""Writes the golden artifacts of this folder, from csrc/FORMAT.md alone: no pygolf, no zstd library.

`good/` holds files that must be read, `bad/` files that must be refused; the name of a bad one says how:
`RULE.ERROR.what.golf`. Run `python tests/golden/make_golden.py` after a change of format; a test compares the
committed bytes with what this script makes. `good/written_by_0.1.golf` and `good/factors_by_0.1.golf` are not from
here: ArtifactWriter of version 0.1 wrote them from the tensors of tests/artifact/conftest.py, and every later version
must read them.
"""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

DENSE, ROWS, FACTORS = 0, 1, 2
FLOAT32, FLOAT16, BFLOAT16 = 0, 1, 2
DATA, SCALES, CODES, ROW_FACTORS, COL_FACTORS = 0, 1, 2, 3, 4
RAW, BITPACK, BYTES_ZSTD, ZSTD, ENTROPY = 0, 1, 2, 3, 4


def zstd_frame(plain: bytes) -> bytes:
    """A zstd frame (RFC 8878) of one uncompressed block: single segment, 4 bytes of content size."""
    block_header = (len(plain) << 3 | 0 << 1 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(plain)) + block_header + plain


@dataclass
class Section:
    role: int
    codec: int
    stored: bytes
    crc: int | None = None  # None: the right one
    size: int | None = None  # None: the right one

    def record(self) -> bytes:
        crc = crc32(self.stored) if self.crc is None else self.crc
        size = len(self.stored) if self.size is None else self.size
        return struct.pack("<BBIQ", self.role, self.codec, crc, size)


@dataclass
class Tensor:
    name: bytes
    encoding: int
    parameter: int  # dtype of dense, bits of rows, states of factors
    shape: tuple[int, ...]
    sections: list[Section]
    grid: bytes = b""  # step and offsets of factors

    def record(self) -> bytes:
        head = struct.pack("<BBB", self.encoding, self.parameter, len(self.name)) + self.name
        shape = struct.pack(f"<B{len(self.shape)}I", len(self.shape), *self.shape)
        sections = b"".join(section.record() for section in self.sections)
        return head + shape + self.grid + struct.pack("<B", len(self.sections)) + sections


@dataclass
class Artifact:
    """Every part of the file; a bad file is a good one with one of them changed. None stands for the right value."""

    tensors: list[Tensor]
    manifest: bytes = json.dumps({"made_by": "make_golden.py"}).encode()
    magic: bytes = b"GOLF"
    version: int = 1
    reserved: int = 0
    manifest_frame: bytes | None = None
    manifest_bytes: int | None = None
    manifest_crc: int | None = None
    table_count: int | None = None
    table_cut: int = 0
    table_tail: bytes = b""
    table_bytes: int | None = None
    table_stored: int | None = None
    table_crc: int | None = None
    header_crc: int | None = None
    tail: bytes = b""  # covered by the file size
    extra: bytes = b""  # not covered by the file size

    def table(self) -> bytes:
        count = len(self.tensors) if self.table_count is None else self.table_count
        table = struct.pack("<I", count) + b"".join(tensor.record() for tensor in self.tensors)
        return table[: len(table) - self.table_cut] + self.table_tail

    def serialize(self) -> bytes:
        def either(value: int | None, right: int) -> int:
            return right if value is None else value

        manifest = zstd_frame(self.manifest) if self.manifest_frame is None else self.manifest_frame
        table = zstd_frame(self.table())
        sections = b"".join(section.stored for tensor in self.tensors for section in tensor.sections)
        body = manifest + table + sections + self.tail
        header = self.magic + struct.pack(
            "<HH3I3IQ",
            self.version,
            self.reserved,
            len(manifest),
            either(self.manifest_bytes, len(self.manifest)),
            either(self.manifest_crc, crc32(manifest)),
            either(self.table_stored, len(table)),
            either(self.table_bytes, len(self.table())),
            either(self.table_crc, crc32(table)),
            44 + len(body),
        )
        return header + struct.pack("<I", either(self.header_crc, crc32(header))) + body + self.extra


# Content of good.golf; the tests compare with these values. Scales and numbers are exact in all three float types.
CODES_2x5 = [[1, -1, 31, -31, 0], [5, -6, 2, 3, -3]]
SCALES_2 = [0.5, 2.0]
NUMBERS_2x3 = [[1.0, -2.0, 0.5], [0.0, 96.0, -0.125]]
CODES_BYTES = struct.pack("<10b", *CODES_2x5[0], *CODES_2x5[1])
CODES_PACKED = bytes.fromhex("c1ff8540a10b430f")  # 6 bits; the upper half of the last byte is unused
SCALES_BYTES = struct.pack("<2e", *SCALES_2)
NUMBERS = [number for row in NUMBERS_2x3 for number in row]

# Of the factors tensors, which have the same codes: logarithms, and the levels (units) of a trellis of four states that
# column 3 is not part of.
STEP = 0.5
ROW_LOGS_2 = [-16, 0]
COL_LOGS_5 = [0, 16, 40, -7, 0]
LEVELS_2x5 = [[2, -1, 63, -62, 0], [10, -11, 4, 6, -5]]
WIDE_BYTES = struct.pack("<10h", *CODES_2x5[0], *CODES_2x5[1])
ROW_BYTES, COL_BYTES = bytes([0, 16]), bytes([8, 24, 48, 1, 8])


def planes(plain: bytes, element_bytes: int) -> bytes:
    return b"".join(plain[i::element_bytes] for i in range(element_bytes))


def rows(name: bytes, codec: int, stored: bytes, bits: int = 6, scales: bytes = SCALES_BYTES) -> Tensor:
    sections = [Section(SCALES, RAW, scales), Section(CODES, codec, stored)]
    return Tensor(name, ROWS, bits, (2, 5), sections)


def dense(name: bytes, dtype: int, plain: bytes, codec: int = RAW) -> Tensor:
    return Tensor(name, DENSE, dtype, (2, 3), [Section(DATA, codec, plain)])


def grid(step: float = STEP, row_offset: int = -16, col_offset: int = -8) -> bytes:
    return struct.pack("<f2h", step, row_offset, col_offset)


def factors(name: bytes, states: int, codec: int = RAW, stored: bytes = WIDE_BYTES) -> Tensor:
    sides = [Section(ROW_FACTORS, RAW, ROW_BYTES), Section(COL_FACTORS, RAW, COL_BYTES)]
    return Tensor(name, FACTORS, states, (2, 5), [*sides, Section(CODES, codec, stored)], grid())


def good() -> Artifact:
    """One tensor of each encoding, dtype and codec."""
    float32, float16 = struct.pack("<6f", *NUMBERS), struct.pack("<6e", *NUMBERS)
    bfloat16 = b"".join(struct.pack("<f", number)[2:] for number in NUMBERS)
    return Artifact(
        [
            rows(b"rows.raw", RAW, CODES_BYTES),
            rows(b"rows.bitpack", BITPACK, CODES_PACKED),
            rows(b"rows.bytes-zstd", BYTES_ZSTD, zstd_frame(CODES_BYTES)),
            dense(b"dense.float32", FLOAT32, float32),
            dense("dense.float16.\u00e9".encode(), FLOAT16, zstd_frame(planes(float16, 2)), ZSTD),
            dense(b"dense.bfloat16", BFLOAT16, bfloat16),
            factors(b"factors.raw", 1),
            factors(b"factors.trellis", 4, ZSTD, zstd_frame(planes(WIDE_BYTES, 2))),
        ]
    )


def changed(**parts: object) -> Callable[[], Artifact]:
    """A good artifact with other parts."""
    artifact = good()
    for name, value in parts.items():
        setattr(artifact, name, value)
    return lambda: artifact


def with_tensor(tensor: Tensor, **parts: object) -> Callable[[], Artifact]:
    """An artifact of this tensor alone, with some of its fields changed."""
    tensor = copy.deepcopy(tensor)
    for name, value in parts.items():
        setattr(tensor, name, value)
    return lambda: Artifact([tensor])


def with_section(codec: int, stored: bytes, tensor: Tensor | None = None, **parts: object) -> Callable[[], Artifact]:
    """An artifact of one rows tensor (or `tensor`) whose last section is this one."""
    tensor = copy.deepcopy(tensor) if tensor else rows(b"rows", codec, stored)
    tensor.sections[-1] = Section(tensor.sections[-1].role, codec, stored, **parts)  # type: ignore[arg-type]
    return lambda: Artifact([tensor])


def bytes_of(change: Callable[[bytes], bytes]) -> Callable[[], bytes]:
    """The good file with its bytes changed."""
    return lambda: change(good().serialize())


ROWS_RAW = rows(b"rows", RAW, CODES_BYTES)
FACTORS_RAW = factors(b"factors", 1)
# Three row factors 1, 0, 256 (d = 1) and three codes 5, 40000, -5 as the entropy coder has them.
FACTORS_256 = bytes.fromhex("0106ac014700f7384cacb5dd010001b7")
CODES_40000 = bytes.fromhex("06aad0018200433e1bde4e74000001f9a15ff0")
DENSE_F32 = dense(b"dense", FLOAT32, struct.pack("<6f", *NUMBERS))
HUGE = 2**64 - 1
COLUMN = Tensor(
    b"column",
    FACTORS,
    1,
    (3, 1),
    [Section(ROW_FACTORS, RAW, bytes(3)), Section(COL_FACTORS, RAW, bytes(1)), Section(CODES, RAW, bytes(6))],
    grid(),
)

BAD: dict[str, Callable[[], Artifact | bytes]] = {
    "A2.FormatError.empty": lambda: b"",
    "A2.FormatError.magic": changed(magic=b"GOLD"),
    "A3.VersionError.newer": changed(version=2),
    "A3.FormatError.zero": changed(version=0),
    "A4.FormatError.header-cut": bytes_of(lambda file: file[:43]),
    "A4.ChecksumError.header-crc": changed(header_crc=0),
    "A5.FormatError.reserved": changed(reserved=1),
    "A6.FormatError.cut": bytes_of(lambda file: file[:-1]),
    "A6.FormatError.trailing": changed(extra=b"\0"),
    "A7.FormatError.manifest-huge": changed(manifest_bytes=2**24 + 1),
    "A7.FormatError.table-huge": changed(table_bytes=2**32 - 1),
    "A7.FormatError.table-outside": changed(table_stored=2**32 - 1),
    "A8.ChecksumError.manifest": changed(manifest_crc=1),
    "A8.ChecksumError.table": changed(table_crc=1),
    "A8.ChecksumError.section": with_section(RAW, CODES_BYTES, crc=1),
    "A9.FormatError.manifest-no-zstd": changed(manifest_frame=b"{}", manifest_bytes=2),
    "A9.FormatError.manifest-short": changed(manifest_bytes=1000),
    "A9.FormatError.table-long": changed(table_bytes=10),
    "A9.FormatError.section-no-zstd": with_section(BYTES_ZSTD, CODES_BYTES),
    "A9.FormatError.section-short": with_section(BYTES_ZSTD, zstd_frame(CODES_BYTES[:-1])),
    "A9.FormatError.section-long": with_section(BYTES_ZSTD, zstd_frame(CODES_BYTES + b"\0")),
    "A9.FormatError.section-two-frames": with_section(
        BYTES_ZSTD, zstd_frame(CODES_BYTES[:5]) + zstd_frame(CODES_BYTES[5:])
    ),
    "A9.FormatError.section-trailing": with_section(BYTES_ZSTD, zstd_frame(CODES_BYTES) + b"\0"),
    "A9.FormatError.entropy-cut": with_section(ENTROPY, CODES_40000[:-1], COLUMN),
    "A9.FormatError.entropy-code-40000": with_section(ENTROPY, CODES_40000, COLUMN),
    "A9.FormatError.entropy-factor-256": with_tensor(
        COLUMN, sections=[Section(ROW_FACTORS, ENTROPY, FACTORS_256), *COLUMN.sections[1:]]
    ),
    "A9.FormatError.entropy-factor-512": with_tensor(
        COLUMN, sections=[Section(ROW_FACTORS, ENTROPY, b"\2" + FACTORS_256[1:]), *COLUMN.sections[1:]]
    ),
    "A9.FormatError.entropy-factors-d-0": with_tensor(
        COLUMN, sections=[Section(ROW_FACTORS, ENTROPY, b"\0" + FACTORS_256[1:]), *COLUMN.sections[1:]]
    ),
    "A10.FormatError.manifest-latin1": changed(manifest=b'{"name": "\xe9"}'),
    "A11.FormatError.cut": changed(table_cut=1),
    "A11.FormatError.count": changed(table_count=2**32 - 1),
    "A11.FormatError.trailing": changed(table_tail=b"\0"),
    "A12.FormatError.empty": with_tensor(ROWS_RAW, name=b""),
    "A12.FormatError.control": with_tensor(ROWS_RAW, name=b"rows\n"),
    "A12.FormatError.overlong-utf8": with_tensor(ROWS_RAW, name=b"\xc0\xaf"),
    "A12.FormatError.twice": changed(tensors=[ROWS_RAW, ROWS_RAW]),
    "A13.FormatError.no-dimensions": with_tensor(DENSE_F32, shape=()),
    "A13.FormatError.five-dimensions": with_tensor(DENSE_F32, shape=(2, 3, 1, 1, 1)),
    "A13.FormatError.zero": with_tensor(DENSE_F32, shape=(0, 3)),
    "A13.FormatError.too-many": with_tensor(DENSE_F32, shape=(2**16, 2**15)),
    "A13.FormatError.overflow": with_tensor(DENSE_F32, shape=(2**31, 2**31, 2**31, 6)),
    "A13.FormatError.rows-3d": with_tensor(ROWS_RAW, shape=(2, 5, 1)),
    "A13.FormatError.factors-1d": with_tensor(FACTORS_RAW, shape=(10,)),
    "A14.VersionError.encoding": with_tensor(ROWS_RAW, encoding=3),
    "A14.FormatError.dtype": with_tensor(DENSE_F32, parameter=3),
    "A14.FormatError.bits-1": with_tensor(ROWS_RAW, parameter=1),
    "A14.FormatError.bits-9": with_tensor(ROWS_RAW, parameter=9),
    "A14.FormatError.states-0": with_tensor(FACTORS_RAW, parameter=0),
    "A14.FormatError.states-2": with_tensor(FACTORS_RAW, parameter=2),
    "A15.VersionError.codec": with_section(200, CODES_BYTES),
    "A15.FormatError.data-bitpack": with_section(BITPACK, DENSE_F32.sections[0].stored, DENSE_F32),
    "A15.FormatError.codes-zstd": with_section(ZSTD, zstd_frame(CODES_BYTES)),
    "A15.FormatError.factors-bytes-zstd": with_section(BYTES_ZSTD, zstd_frame(CODES_BYTES), FACTORS_RAW),
    "A15.FormatError.data-entropy": with_section(ENTROPY, DENSE_F32.sections[0].stored, DENSE_F32),
    "A16.FormatError.none": with_tensor(DENSE_F32, sections=[]),
    "A16.FormatError.order": with_tensor(ROWS_RAW, sections=ROWS_RAW.sections[::-1]),
    "A16.FormatError.scales-missing": with_tensor(ROWS_RAW, sections=ROWS_RAW.sections[1:]),
    "A16.FormatError.column-factors-missing": with_tensor(FACTORS_RAW, sections=FACTORS_RAW.sections[::2]),
    "A17.FormatError.factors-narrow-codes": with_section(RAW, CODES_BYTES, FACTORS_RAW),
    "A17.FormatError.factors-swapped": with_tensor(FACTORS_RAW, shape=(5, 2)),
    "A17.FormatError.raw-short": with_section(RAW, CODES_BYTES[:-1]),
    "A17.FormatError.bitpack-long": with_section(BITPACK, CODES_PACKED + b"\0"),
    "A17.FormatError.zstd-bomb": with_tensor(rows(b"rows", BYTES_ZSTD, zstd_frame(CODES_BYTES)), shape=(2, 2**29 + 1)),
    "A17.FormatError.outside": with_section(BYTES_ZSTD, zstd_frame(CODES_BYTES), size=HUGE),
    "A17.FormatError.one-byte-outside": with_section(BYTES_ZSTD, zstd_frame(CODES_BYTES), size=23),
    "A17.FormatError.end": changed(tail=b"\0"),
    "A18.FormatError.raw-32": with_section(RAW, b"\x20" + CODES_BYTES[1:]),
    "A18.FormatError.zstd-minus-32": with_section(BYTES_ZSTD, zstd_frame(CODES_BYTES[:-1] + b"\xe0")),
    "A18.FormatError.bitpack-minus-32": with_section(BITPACK, b"\xe0" + CODES_PACKED[1:]),
    "A18.FormatError.bitpack-tail": with_section(BITPACK, CODES_PACKED[:-1] + b"\x8f"),
    "A19.FormatError.infinite": lambda: Artifact([rows(b"rows", RAW, CODES_BYTES, scales=b"\0\x7c\0\x3c")]),
    "A19.FormatError.negative": lambda: Artifact([rows(b"rows", RAW, CODES_BYTES, scales=b"\0\x3c\0\x80")]),
    "A20.FormatError.step-zero": with_tensor(FACTORS_RAW, grid=grid(step=0.0)),
    "A20.FormatError.step-small": with_tensor(FACTORS_RAW, grid=grid(step=2.0**-61)),
    "A20.FormatError.step-large": with_tensor(FACTORS_RAW, grid=grid(step=2.0**47)),
    "A20.FormatError.step-negative": with_tensor(FACTORS_RAW, grid=grid(step=-0.5)),
    "A20.FormatError.step-nan": with_tensor(FACTORS_RAW, grid=grid(step=float("nan"))),
    "A20.FormatError.row-offset": with_tensor(FACTORS_RAW, grid=grid(row_offset=257)),
    "A20.FormatError.column-offset": with_tensor(FACTORS_RAW, grid=grid(col_offset=-513)),
}


def golden_files() -> dict[str, bytes]:
    """Path below this folder -> content."""
    files = {"good/made_by_hand.golf": good().serialize()}
    for name, make in BAD.items():
        made = make()
        files[f"bad/{name}.golf"] = made if isinstance(made, bytes) else made.serialize()
    return files


def main() -> None:
    for name, content in golden_files().items():
        path = Path(__file__).parent / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main()
