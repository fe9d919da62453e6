#include <cuda_fp16.h>

#include <algorithm>

#include "launch_check.cuh"
#include "row_codes.hpp"

namespace pygolf::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMostColumnBlocks = 65535;  // the limit of gridDim.y

// One grid row a matrix row; blocks of the row stride over its columns.
__global__ void dequantize_kernel(DequantizeParams params) {
    const std::int64_t row = blockIdx.x;
    const float scale = __half2float(__ushort_as_half(params.scales_R[row]));
    const std::int64_t stride = std::int64_t{gridDim.y} * kThreads;
    for (std::int64_t column = std::int64_t{blockIdx.y} * kThreads + threadIdx.x; column < params.columns;
         column += stride) {
        const std::int64_t i = row * params.columns + column;
        params.values_RC[i] = __fmul_rn(static_cast<float>(params.codes_RC[i]), scale);
    }
}

}  // namespace

void launch_dequantize(const DequantizeParams& params, cudaStream_t stream) {
    if (params.rows == 0 || params.columns == 0) return;
    const std::int64_t column_blocks =
        std::min((params.columns + kThreads - 1) / kThreads, kMostColumnBlocks);
    const dim3 grid(static_cast<unsigned>(params.rows), static_cast<unsigned>(column_blocks));
    dequantize_kernel<<<grid, kThreads, 0, stream>>>(params);
    check_launch("dequantize");
}

}  // namespace pygolf::cuda
