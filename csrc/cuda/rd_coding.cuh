// Coding of one row's part in a tile by one warp: lane l has the columns l, l + 32, l + 64 and l + 96.
//
// Legend: T columns a lane.
#pragma once

#include <math_constants.h>

#include "rd_solve.hpp"

namespace pygolf::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kLaneColumns = kTileColumns / 32;  // T

// Feedback within the tile: U_jk for j < k, zeros elsewhere. A column's feedback thus leaves alone what was
// coded before, so every lane keeps its weights as they were when they were rounded.
using Coefficients = float[kTileColumns][kTileColumns];

// The lane's columns of a row. Columns that do not exist have weight 0, step 1 and inverse diagonal 0.
struct RowPart {
    float weight_T[kLaneColumns];
    float step_T[kLaneColumns];
    float target_T[kLaneColumns];  // weight to multiple of the step: 1 / step, less if bits have a price
    float price_T[kLaneColumns];   // added to e^2, times the multiple's square
    float inverse_diagonal_T[kLaneColumns];  // 1 / U_jj
    int is_plain_T[kLaneColumns];            // inside a trellis
    unsigned classes;                        // trellis: the columns' value classes, 2 bits each
    int columns;                             // of the tile that exist
};

// NaN in place of what must be positive and finite and is not: it reaches the error, which says so.
__device__ inline float positive(float value) {
    return value > 0 && value < CUDART_INF_F ? value : CUDART_NAN_F;
}

// Multiple of the step nearest to a weight in steps.
__device__ inline float nearest(float steps, float max_code) {
    return fminf(fmaxf(rintf(steps), -max_code), max_code);
}

// The same among the multiples of a class modulo 4.
__device__ inline float nearest_in_class(float steps, int value_class) {
    const auto offset = static_cast<float>(value_class);
    return fmaf(4.0f, rintf((steps - offset) * 0.25f), offset);
}

__device__ inline void code_plain(RowPart& row, const Coefficients& coefficients, float max_code, int lane) {
#pragma unroll
    for (int t = 0; t < kLaneColumns; ++t) {
        const int end = min(32, row.columns - 32 * t);
#pragma unroll 4
        for (int owner = 0; owner < end; ++owner) {
            const float code = nearest(row.weight_T[t] * row.target_T[t], max_code);
            const float mine = fmaf(-code, row.step_T[t], row.weight_T[t]) * row.inverse_diagonal_T[t];
            const float error = __shfl_sync(kAllLanes, mine, owner);
#pragma unroll
            for (int later = t; later < kLaneColumns; ++later) {
                row.weight_T[later] =
                    fmaf(-error, coefficients[32 * t + owner][lane + 32 * later], row.weight_T[later]);
            }
        }
    }
}

}  // namespace pygolf::cuda
