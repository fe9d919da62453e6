// The inner loops of GPTQ and of its Cholesky factorisation, once for each instruction set.
//
// A tile is a group of matrix rows laid side by side, so that vectors run over rows: element (row, column) of
// a tile is at [column * lanes + row]. A panel is kPanel neighbouring columns. With two vectors a tile and
// six columns a panel, twelve accumulators, two tile vectors and a broadcast coefficient fill sixteen vector
// registers.
//
// Legend: L lanes (rows of a tile), P columns of a panel, D depth (columns summed over).
#pragma once

#include <cstddef>
#include <span>

namespace pygolf {

inline constexpr std::size_t kPanel = 6;
inline constexpr std::size_t kMostLanes = 32;  // of any instruction set

// One panel of one tile in the quantization of a matrix; see gptq.hpp for the formulas.
struct QuantizePanel {
    float* weight_PL;          // in: weights with the feedback of all earlier columns; out: codes, as floats
    const float* original_PL;  // weights without feedback
    const float* step_L;       // size of one code step, positive
    const float* feedback_PP;  // row i, column j: share of column i's error that is added to column j > i
    const float* pivot_P;      // R_jj
    float max_code;
    float* residual_PL;        // out: original - code * step
    float* damped_error_L;     // out: sum over the panel's columns of (R_jj * rounding error)^2
    float* residual_square_L;  // out: sum over the panel's columns of residual^2
};

struct Kernels {
    const char* name;
    std::size_t float_lanes;
    std::size_t double_lanes;
    // target_PL += right_DP^T left_DL, each element summed in order of depth.
    void (*update_float)(float* target_PL, const float* left_DL, const float* right_DP, std::size_t depth);
    void (*update_double)(double* target_PL, const double* left_DL, const double* right_DP,
                          std::size_t depth);
    void (*quantize)(const QuantizePanel& panel);
};

// Kernels that this processor can run, the widest last. Never empty. The result of a computation may differ
// in the last place between instruction sets (fused multiply-add), never between runs on one processor.
[[nodiscard]] std::span<const Kernels> supported_kernels();

}  // namespace pygolf
