// CUDA kernels for integer codes: raw device pointers and a stream, no torch.
//
// Legend: R rows, C columns.
// The launchers return at once; the work is ordered by the stream. The caller makes the buffers' device
// current and keeps the buffers alive until the work is done. Error: the launch failed (what CUDA says is in
// the message).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace pygolf::cuda {

// The twin of pygolf::unpack_codes (pygolf/bitpack.hpp), which specifies the layout.
struct UnpackParams {
    const std::uint8_t* packed;  // packed_bytes(count, bits) bytes
    std::int8_t* codes;          // count of them, aligned to 8 bytes
    std::int64_t count;
    int bits;  // 2 to 8
};
void launch_unpack(const UnpackParams& params, cudaStream_t stream);

// The twin of pygolf::dequantize_rows (pygolf/dequantize.hpp), equal to it bit for bit.
struct DequantizeParams {
    const std::int8_t* codes_RC;
    const std::uint16_t* scales_R;  // bits of an IEEE half
    float* values_RC;
    std::int64_t rows;
    std::int64_t columns;
};
void launch_dequantize(const DequantizeParams& params, cudaStream_t stream);

}  // namespace pygolf::cuda
