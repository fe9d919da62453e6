// The rate-distortion quantizer: integer codes of any size whose error, as the loss sees it, is least for the
// bits that an entropy coder spends on them.
//
// Legend: M matrices of one shape, R rows (outputs), C columns (inputs).
//
// Element (i, j) is coded in steps of step_ij = step_row_i * step_col_j. U [C, C] is the upper Cholesky
// factor of the inverse of H = E[x x^T] over the layer's inputs x, so that H^-1 = U^T U; V [R, R] the same
// for G = E[g g^T] over the gradients g of its outputs. With the error D = W - (decoded W), the loss rises by
// half of
//
//     trace(G D H D^T) = sum over i, j of f_ij^2   where   D = V^T f U
//
// so an element has to answer for f_ij alone, once it has made up for the errors before it in its row
// (through U, as in GPTQ) and in the rows above (through V, see YAQA, arXiv 2505.22988):
//
//     w'_ij = w_ij - sum over a < i of D_aj V_ai / V_aa - V_ii * sum over b < j of f_ib U_bj
//     f_ij  = (w'_ij - decoded_ij) / (V_ii U_jj)
//
// Without V, V is the identity. U and V are read on and above the diagonal only.
//
// Plain codes (states = 1) decode to k * step. With 4 or 8 states the codes are those of a trellis, see
// pygolf/trellis.hpp: k stands for (2k + q) * step, so that each element has half of the values and half of
// the rate, and the path through the states has the rest. The solver finds the path of least cost with the
// Viterbi algorithm, in which each survivor carries its own feedback. At equal error and independent weights
// this takes 0.17 bit a code less than plain codes (8 states; 4: 0.16).
//
// A column whose weights are well below a step costs almost nothing when it is coded plainly, but a trellis
// has to go through it. So it can be left out: a plain column inside a trellis has the values 2k * step and
// does not move the state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace pygolf {

// The path is decided every so many columns, and goes on from the state that it has reached.
inline constexpr std::size_t kRdBlock = 128;

struct RdProblem {
    std::size_t matrices = 0;  // M
    std::size_t rows = 0;      // R
    std::size_t columns = 0;   // C
    std::span<const float> weight_MRC;
    std::span<const float> input_factor_MCC;   // U
    std::span<const float> output_factor_MRR;  // V; empty: no feedback between rows
    std::span<const float> step_row_MR;
    std::span<const float> step_col_MC;
    std::span<const std::uint8_t> plain_col_MC;  // not 0: a plain column inside a trellis; empty: none is
};

struct RdOptions {
    int states = 1;  // 1, 4 or 8
    // Price of a bit: the solver minimises f^2 + rate_lambda * bits * mean over j of (step_ij / U_jj)^2,
    // where a value takes the bits of a bell curve as wide as its row and column. 0: least f^2.
    float rate_lambda = 0;
    int threads = 0;  // 0: one a core; changes no result
};

// Writes the codes and each matrix's sum of f^2. ArgumentError: sizes that do not fit, options out of range.
// NumericError: NaN or infinity, a step or a diagonal element of U or V that is not positive, a code beyond
// 16 bits. Deterministic on one processor; other processors may differ in ties (fused multiply-add).
void rd_quantize(const RdProblem& problem, const RdOptions& options, std::span<std::int16_t> codes_MRC,
                 std::span<float> error_M);

}  // namespace pygolf
