#include "launch_check.cuh"
#include "rd_solve.hpp"

namespace pygolf::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr double kLog2E = 1.4426950408889634;
constexpr double kLeast = 1e-9;  // keeps rows and columns of zeros out of divisions

__device__ double sum_of_block(double value) {
    __shared__ double sums[kThreads];
    sums[threadIdx.x] = value;
    for (int half = kThreads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    __syncthreads();
    const double sum = sums[0];
    __syncthreads();  // before the next call writes
    return sum;
}

__device__ double square_of(const RdPriceParams& p, std::int64_t matrix, std::int64_t row,
                            std::int64_t column) {
    const std::int64_t line = matrix * p.rows + row;
    const float step = p.step_row_MR[line] * p.step_col_MC[matrix * p.columns + column];
    const double value = p.weight_MRC[line * p.columns + column] / step;
    return value * value;
}

// A block a row.
__global__ void price_rows(RdPriceParams p) {
    const std::int64_t matrix = blockIdx.x / p.rows;
    const std::int64_t row = blockIdx.x % p.rows;
    double square = 0;
    for (std::int64_t column = threadIdx.x; column < p.columns; column += kThreads) {
        square += square_of(p, matrix, row, column);
    }
    square = sum_of_block(square);
    if (threadIdx.x != 0) return;
    const double step = p.step_row_MR[blockIdx.x];
    p.square_MR[blockIdx.x] = square;
    p.price_row_MR[blockIdx.x] =
        static_cast<float>(step * step / (square / static_cast<double>(p.columns) + kLeast));
}

// Sum over the matrix of (w / step)^2.
__device__ double square_of_matrix(const RdPriceParams& p, std::int64_t matrix) {
    double square = 0;
    for (std::int64_t row = threadIdx.x; row < p.rows; row += kThreads)
        square += p.square_MR[matrix * p.rows + row];
    return sum_of_block(square);
}

// Mean over columns of (step_col / U_jj)^2.
__device__ double mean_unit_error(const RdPriceParams& p, std::int64_t matrix) {
    double sum = 0;
    for (std::int64_t column = threadIdx.x; column < p.columns; column += kThreads) {
        const std::int64_t line = matrix * p.columns + column;
        const double ratio = p.step_col_MC[line] / p.factor_MCC[line * p.columns + column];
        sum += ratio * ratio;
    }
    return sum_of_block(sum) / static_cast<double>(p.columns);
}

// A block for 32 columns, which its warps go down in turns.
__global__ void price_columns(RdPriceParams p) {
    const std::int64_t blocks = (p.columns + 31) / 32;
    const std::int64_t matrix = blockIdx.x / blocks;
    const std::int64_t column = blockIdx.x % blocks * 32 + threadIdx.x % 32;
    const double all = square_of_matrix(p, matrix);
    const double unit_error = mean_unit_error(p, matrix);
    double square = 0;
    if (column < p.columns) {
        for (std::int64_t row = threadIdx.x / 32; row < p.rows; row += kWarps)
            square += square_of(p, matrix, row, column);
    }
    __shared__ double squares[kWarps][32];
    squares[threadIdx.x / 32][threadIdx.x % 32] = square;
    __syncthreads();
    if (threadIdx.x >= 32 || column >= p.columns) return;
    double column_square = 0;
    for (int warp = 0; warp < kWarps; ++warp) column_square += squares[warp][threadIdx.x];
    const double share = all > 0 ? column_square * static_cast<double>(p.columns) / all : 1;
    // A bell curve spends log2(e) / 2 * (value / sigma)^2 bits beside a constant.
    p.price_col_MC[matrix * p.columns + column] =
        static_cast<float>(p.rate_lambda * kLog2E / 2 * unit_error / (share + kLeast));
}

}  // namespace

void launch_rd_prices(const RdPriceParams& p, cudaStream_t stream) {
    price_rows<<<static_cast<unsigned>(p.matrices * p.rows), kThreads, 0, stream>>>(p);
    check_launch("price_rows");
    price_columns<<<static_cast<unsigned>(p.matrices * ((p.columns + 31) / 32)), kThreads, 0, stream>>>(p);
    check_launch("price_columns");
}

}  // namespace pygolf::cuda
