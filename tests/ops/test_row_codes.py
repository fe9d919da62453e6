"""Packing, unpacking and dequantizing of integer codes, on the CPU and on CUDA."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pygolf import ops
from pygolf.errors import ArgumentError

WIDTHS = range(2, 9)
AWKWARD_COUNTS = (0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 1021)


def random_codes(count: int, bits: int) -> Tensor:
    most = 2 ** (bits - 1) - 1
    return torch.randint(-most, most + 1, (count,), generator=torch.Generator().manual_seed(count)).to(torch.int8)


def every_scale() -> Tensor:
    """All finite float16 values, subnormal and negative ones too."""
    values = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.float16)
    return values[values.isfinite()]


@pytest.mark.parametrize("bits", WIDTHS)
def test_unpack_reverses_pack(bits: int) -> None:
    for count in AWKWARD_COUNTS:
        codes = random_codes(count, bits)
        packed = ops.pack(codes, bits)
        assert packed.shape == ((count * bits + 7) // 8,)
        assert torch.equal(ops.unpack(packed, bits, count), codes)


def test_pack_takes_any_shape_and_layout() -> None:
    codes = random_codes(60, 5).view(3, 4, 5)
    assert torch.equal(ops.pack(codes.mT, 5), ops.pack(codes.mT.flatten(), 5))
    assert torch.equal(ops.unpack(ops.pack(codes, 5), 5, 60), codes.flatten())


def test_dequantize_multiplies_rows() -> None:
    scales = every_scale()
    codes = torch.arange(-128, 128).to(torch.int8).expand(len(scales), 256)
    assert torch.equal(ops.dequantize(codes, scales), codes.float() * scales.float()[:, None])
    assert ops.dequantize(codes[:0], scales[:0]).shape == (0, 256)


def test_bad_arguments_are_named() -> None:
    codes = torch.zeros(3, 4, dtype=torch.int8)
    with pytest.raises(ArgumentError, match=r"^bits is 9"):
        ops.pack(codes, 9)
    with pytest.raises(ArgumentError, match=r"^code 2 is 9"):
        ops.pack(torch.tensor([0, 0, 9], dtype=torch.int8), 4)
    with pytest.raises(ArgumentError, match=r"^packed has shape \[5\], expected \[6\]"):
        ops.unpack(torch.zeros(5, dtype=torch.uint8), 4, 12)
    with pytest.raises(ArgumentError, match=r"^count is -1"):
        ops.unpack(torch.zeros(0, dtype=torch.uint8), 4, -1)
    with pytest.raises(ArgumentError, match=r"^scales has shape \[2\], expected \[3\]"):
        ops.dequantize(codes, torch.ones(2, dtype=torch.float16))
    with pytest.raises(ArgumentError, match=r"^scales has dtype Float, expected Half"):
        ops.dequantize(codes, torch.ones(3))


def test_other_failures_of_torch_pass_through() -> None:
    with pytest.raises(NotImplementedError, match=r"meta|Meta|sparse|Sparse"):
        ops.pack(torch.zeros(3, dtype=torch.int8).to_sparse(), 4)


def test_opcheck() -> None:
    codes = random_codes(21, 6)
    torch.library.opcheck(torch.ops.pygolf.pack.default, (codes, 6))
    torch.library.opcheck(torch.ops.pygolf.unpack.default, (ops.pack(codes, 6), 6, 21))
    torch.library.opcheck(torch.ops.pygolf.dequantize.default, (codes.view(3, 7), torch.rand(3).half()))


def test_unpacking_compiles_into_one_graph() -> None:
    codes, scales = random_codes(24, 6), torch.rand(4).half()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def weight(packed: Tensor) -> Tensor:
        return ops.dequantize(ops.unpack(packed, 6, 24).view(4, 6), scales) + 1

    assert torch.equal(weight(ops.pack(codes, 6)), codes.view(4, 6).float() * scales.float()[:, None] + 1)


@pytest.mark.gpu
@pytest.mark.parametrize("bits", WIDTHS)
def test_cuda_unpack_equals_cpu(bits: int) -> None:
    for count in (*AWKWARD_COUNTS, 1_000_003):
        packed = ops.pack(random_codes(count, bits), bits)
        assert torch.equal(ops.unpack(packed.cuda(), bits, count).cpu(), ops.unpack(packed, bits, count))
    every_byte = torch.arange(256, dtype=torch.uint8).repeat(bits)  # also fields that no packer writes
    assert torch.equal(ops.unpack(every_byte.cuda(), bits, 2048).cpu(), ops.unpack(every_byte, bits, 2048))


@pytest.mark.gpu
def test_cuda_unpack_reads_from_any_address() -> None:
    packed = ops.pack(random_codes(1021, 6), 6)
    shifted = torch.cat([torch.zeros(3, dtype=torch.uint8), packed]).cuda()[3:]
    assert torch.equal(ops.unpack(shifted, 6, 1021).cpu(), ops.unpack(packed, 6, 1021))


@pytest.mark.gpu
def test_cuda_dequantize_equals_cpu_bit_for_bit() -> None:
    scales = every_scale()
    codes = torch.arange(-128, 128).to(torch.int8).expand(len(scales), 256)
    on_cuda = ops.dequantize(codes.cuda(), scales.cuda()).cpu()
    assert torch.equal(on_cuda.view(torch.int32), ops.dequantize(codes, scales).view(torch.int32))
    for rows, columns in ((1, 1), (0, 5), (5, 0), (1, 70_001), (300, 1)):
        codes = random_codes(rows * columns, 8).view(rows, columns)
        expected = ops.dequantize(codes, scales[:rows])
        assert torch.equal(ops.dequantize(codes.cuda(), scales[:rows].cuda()).cpu(), expected)


@pytest.mark.gpu
def test_cuda_work_is_ordered_by_the_current_stream() -> None:
    bits, rows, columns = 6, 512, 4096
    codes = random_codes(rows * columns, bits)
    packed, scales = ops.pack(codes, bits).cuda(), torch.rand(rows).half().cuda()
    late = torch.zeros_like(packed)

    def decode() -> Tensor:
        return ops.dequantize(ops.unpack(late, bits, rows * columns).view(rows, columns), scales)

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        decode()  # loads the kernels and the allocator's blocks, which may wait for the device
        torch.cuda.synchronize()
        torch.cuda._sleep(200_000_000)  # about 0.1 s: work on any other stream would overtake the copy
        late.copy_(packed)
        values = decode()
        assert not side.query(), "the operators waited for the device"
    side.synchronize()
    assert torch.equal(values.cpu(), ops.dequantize(codes.view(rows, columns), scales.cpu()))


@pytest.mark.gpu
def test_cuda_opcheck_and_device_errors() -> None:
    codes = random_codes(21, 6)
    torch.library.opcheck(torch.ops.pygolf.unpack.default, (ops.pack(codes, 6).cuda(), 6, 21))
    scales = torch.rand(3).half()
    torch.library.opcheck(torch.ops.pygolf.dequantize.default, (codes.view(3, 7).cuda(), scales.cuda()))
    with pytest.raises(ArgumentError, match=r"^codes and scales are on different devices"):
        ops.dequantize(codes.view(3, 7).cuda(), scales)
    with pytest.raises(ArgumentError, match=r"^packed has shape \[5\], expected \[6\]"):
        ops.unpack(torch.zeros(5, dtype=torch.uint8).cuda(), 4, 12)
    with pytest.raises(ArgumentError, match=r"^weight is on cuda:0, expected cpu"):
        ops.gptq_solve(torch.ones(1, 1).cuda(), torch.ones(1, 1), torch.ones(1, 1))
