#include "launch_check.cuh"
#include "row_codes.hpp"

namespace pygolf::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kGroup = 8;  // codes a thread: they fill exactly `bits` bytes

// Bytes [begin, begin + bits) of the stream as one little-endian word, zeros beyond its end.
template <int bits>
__device__ std::uint64_t load_group(const std::uint8_t* packed, std::int64_t begin, std::int64_t end) {
    std::uint64_t word = 0;
#pragma unroll
    for (int byte = 0; byte < bits; ++byte) {
        if (begin + byte < end) word |= std::uint64_t{packed[begin + byte]} << (8 * byte);
    }
    return word;
}

// Field i as the byte of a sign-extended code: shifted to the top of the word and back.
template <int bits>
__device__ std::uint8_t field(std::uint64_t word, int i) {
    const auto top = static_cast<std::int64_t>(word << (64 - bits - i * bits));
    return static_cast<std::uint8_t>(top >> (64 - bits));
}

template <int bits>
__global__ void unpack_kernel(UnpackParams params) {
    const std::int64_t group = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
    const std::int64_t first = group * kGroup;
    if (first >= params.count) return;
    const std::int64_t packed_bytes = (params.count * bits + 7) / 8;
    const std::uint64_t word = load_group<bits>(params.packed, group * bits, packed_bytes);
    if (first + kGroup <= params.count) {
        std::uint64_t codes = 0;
#pragma unroll
        for (int i = 0; i < kGroup; ++i) codes |= std::uint64_t{field<bits>(word, i)} << (8 * i);
        *reinterpret_cast<std::uint64_t*>(params.codes + first) = codes;
    } else {
        for (int i = 0; first + i < params.count; ++i) {
            params.codes[first + i] = static_cast<std::int8_t>(field<bits>(word, i));
        }
    }
}

template <int bits>
void launch(const UnpackParams& params, cudaStream_t stream) {
    constexpr std::int64_t codes_per_block = kThreads * kGroup;
    const auto blocks = static_cast<unsigned>((params.count + codes_per_block - 1) / codes_per_block);
    unpack_kernel<bits><<<blocks, kThreads, 0, stream>>>(params);
}

}  // namespace

void launch_unpack(const UnpackParams& params, cudaStream_t stream) {
    if (params.count == 0) return;
    switch (params.bits) {
        case 2:
            launch<2>(params, stream);
            break;
        case 3:
            launch<3>(params, stream);
            break;
        case 4:
            launch<4>(params, stream);
            break;
        case 5:
            launch<5>(params, stream);
            break;
        case 6:
            launch<6>(params, stream);
            break;
        case 7:
            launch<7>(params, stream);
            break;
        case 8:
            launch<8>(params, stream);
            break;
        default:
            fail<ArgumentError>("bits is ", params.bits, ", expected 2 to 8");
    }
    check_launch("unpack");
}

}  // namespace pygolf::cuda
