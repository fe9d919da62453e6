// The inner loops of the rate-distortion quantizer (see rd_quantize.hpp): one block of one row, for each
// instruction set.
//
// Legend: N columns of the block, at most B = kRdBlock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "pygolf/rd_quantize.hpp"

namespace pygolf {

// The trellis backwards, for vectors whose lanes are states: a state is reached from two others.
struct TrellisBranches {
    static constexpr std::size_t kLanes = 8;
    struct Branch {
        alignas(32) std::array<std::int32_t, kLanes> from;  // predecessor
        alignas(32) std::array<float, kLanes> offset;       // the branch has the values 4m + offset
    };
    Branch low;   // from the lower predecessor, which wins ties
    Branch high;  // from the higher one
};

// With less than 8 states the lanes beyond lead nowhere.
[[nodiscard]] TrellisBranches branches_of(int states);

struct RdRow {
    std::size_t columns;          // N
    const float* factor_NB;       // U_jk of the block, rows kRdBlock long
    const float* inverse_step_N;  // 1 / step
    const float* shrink_N;  // what a target is multiplied by before it is rounded; 1 without a rate term
    const float* weight_N;  // step / U_jj: an error of one step
    const float* price_N;   // cost of value^2, value in steps
    const std::uint8_t* plain_N;  // not 0: a plain column inside a trellis
    const float* target_N;        // weights with the feedback of everything before the block
    float* value_N;               // out: decoded value in steps, an integer
    float* error_N;               // out: rounding errors / U_jj, V_ii f in rd_quantize.hpp
};

struct RdKernels {
    // Both return the state after the block; `trellis` is not used by `plain`.
    int (*plain)(const RdRow& row, const TrellisBranches& trellis, int state);
    int (*viterbi)(const RdRow& row, const TrellisBranches& trellis, int state);
};

// The widest that this processor runs is last.
[[nodiscard]] std::span<const RdKernels> supported_rd_kernels();

}  // namespace pygolf
