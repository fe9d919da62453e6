// GPTQ's error feedback on CUDA: raw device pointers and a stream, no torch.
//
// Legend: M matrices of one shape; R rows, C columns; N = copies * R rows to solve.
// The launcher returns at once; the work is ordered by the stream. The caller makes the buffers' device
// current and keeps the buffers alive until the work is done. Error: the launch failed.
//
// A row w is coded from left to right. With U the upper Cholesky factor of the inverse Hessian of the inputs,
//
//     q_j = rint(w_j / step_ij), value_j = q_j step_ij     (or by a trellis, pygolf/trellis.hpp)
//     e_j = (w_j - value_j) / U_jj,  w_k -= e_j U_jk       for k > j
//
// Two-sided, with V the same of the outputs' gradients, row i first takes the feedback of the rows above it,
//
//     t_i = w_i - sum over i' < i of z_i' V_i'i / V_i'i',  z_i = t_i - value_i
//
// and is then coded in the same way. As z_i = e_i U, this is feedback through the Kronecker product V x U.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "pygolf/rd_quantize.hpp"

namespace pygolf::cuda {

// With a price, the multiple x of the step is that of least e_j^2 + price_ij x^2.
struct RdParams {
    const float* weight_MRC = nullptr;
    const float* factor_MCC = nullptr;           // U; only its upper triangle is read
    const float* row_factor_MRR = nullptr;       // V; null: one-sided
    const float* step_row_MN = nullptr;          // step_ij = step_row_i * step_col_j
    const float* step_col_MC = nullptr;          // null: ones
    const std::uint8_t* plain_col_MC = nullptr;  // 1: outside of the trellis; null: no column
    const float* price_row_MN = nullptr;         // price_ij = price_row_i * price_col_j; null: 0
    const float* price_col_MC = nullptr;
    std::int16_t* codes_MNC = nullptr;  // out
    double* error_MN = nullptr;  // out: sum over j of (e_j / V_ii)^2, infinite if a code has no 16 bits
    float* column_error_MCN = nullptr;  // scratch: e
    float* row_error_MRC = nullptr;     // scratch, two-sided: z_i / V_ii
    std::uint8_t* state_MN = nullptr;   // scratch, trellis
    std::int64_t matrices = 0;
    std::int64_t rows = 0;
    std::int64_t columns = 0;
    std::int64_t copies = 1;  // row n solves row n mod R of the weight; two-sided: 1
    float max_code = 65535;   // plain codes are clamped to this magnitude
    int states = 1;           // 1: plain; 4 or 8: trellis, decided every kRdBlock columns
};

// Prices for a rate, as pygolf::RdOptions has it, on the scale of one-sided errors.
struct RdPriceParams {
    const float* weight_MRC;
    const float* factor_MCC;
    const float* step_row_MR;
    const float* step_col_MC;
    double* square_MR;    // scratch: sum over j of (w / step)^2
    float* price_row_MR;  // out
    float* price_col_MC;  // out
    std::int64_t matrices;
    std::int64_t rows;
    std::int64_t columns;
    float rate_lambda;
};
void launch_rd_prices(const RdPriceParams& params, cudaStream_t stream);

inline constexpr int kTileRows = 32;
inline constexpr int kTileColumns = kRdBlock;

void launch_rd_solve(const RdParams& params, cudaStream_t stream);

}  // namespace pygolf::cuda
