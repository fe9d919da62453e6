// GPTQ: rounding of a weight matrix that keeps its layer's outputs close (Frantar et al., arXiv 2210.17323).
//
// Legend: R rows (outputs), C columns (inputs), K candidates for the scale of a row.
//
// A row w is coded as integers q times one step s. With the Hessian H = E[x x^T] of the layer's input x, the
// mean squared change of the output is d H d^T, where d = w - q s. Columns are rounded in order of descending
// H_jj, and each column makes up for the errors of those before it. Let H + damping = R R^T with R upper
// triangular; R is the inverse of the paper's U, the upper Cholesky factor of the inverse. Then
//
//     w'_j = w_j + sum over i < j of d_i R_ij / R_jj        weight with feedback
//     q_j  = clamp(round(w'_j / s), -max_code, max_code)    round: nearest, ties to even
//     e_j  = R_jj (w'_j - q_j s)                            the paper's (w'_j - q_j s) / U_jj
//     sum over j of e_j^2 = d (H + damping) d^T
//
// which is the paper's rule, as e = d R, without inverting anything; and the last line gives the error under
// the undamped H as sum e_j^2 - damping |d|^2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pygolf {

struct GptqProblem {
    std::size_t rows = 0;               // R
    std::size_t columns = 0;            // C
    std::size_t candidates = 0;         // K
    std::span<const float> weight_RC;   // row-major
    std::span<const float> hessian_CC;  // symmetric, positive semidefinite
    std::span<const float>
        clips_KR;  // largest weight that a candidate codes, >= 0; step = half(clip / max_code)
};

struct GptqOptions {
    int max_code = 31;        // 1 to 127; 31 for int6
    double damping = 0.005;   // times the mean of the nonzero H_jj, added to each of them; above 0, up to 1
    int block_columns = 128;  // columns whose feedback to later ones is applied together; changes no result
    int threads = 0;          // 0: one a processor; changes no result
};

struct GptqResult {
    std::vector<std::int8_t> codes_RC;
    std::vector<std::uint16_t> scales_R;  // steps of the chosen candidates, bits of an IEEE half
    std::vector<std::int32_t> choice_R;   // candidate with the least error, the first of equals
    std::vector<float> error_R;           // d H d^T of the chosen candidate, H without damping
    double damping = 0;            // that was used: the option, or more if H + damping could not be factored
    std::size_t dead_columns = 0;  // columns with H_jj = 0, coded as 0 and left out of everything else
};

// Solves all K candidates of every row and keeps each row's best.
//
// A row without nonzero weights in live columns gets scale 0 and codes 0; in any other row a step that is
// zero in half precision is raised to 2^-24, the smallest that is not. If H + damping is not positive
// definite, damping is raised tenfold until it is, up to 1. ArgumentError: sizes that do not fit, options out
// of range, a negative clip. NumericError: NaN or infinity, a negative H_jj, a step or weight beyond what
// half-precision steps can express, H not positive definite with damping 1. Deterministic on one processor;
// other processors may differ in ties (see simd_kernels.hpp).
[[nodiscard]] GptqResult gptq_solve(const GptqProblem& problem, const GptqOptions& options);

}  // namespace pygolf
