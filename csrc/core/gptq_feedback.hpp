// What GPTQ needs to know of a Hessian: the order of the columns and the feedback between them (see
// gptq.hpp).
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "simd_kernels.hpp"

namespace pygolf {

// Legend: N live columns, in coding order; P = kPanel.
struct Feedback {
    std::vector<std::size_t>
        order_N;         // column of the matrix that is coded n-th: descending H_jj, first of equals first
    double unit = 0;     // mean live H_jj; the fields below belong to H / unit
    double damping = 0;  // that the factorisation took
    std::size_t panels = 0;     // ceil(N / P); columns from N to panels * P have no weight, feedback or error
    std::vector<float> pivots;  // R_jj, panels * P of them
    std::vector<float> coefficients;  // R_ij / R_jj by panel of j, then i from 0 to the panel's end, then j

    // Coefficients of `panel` from row i = `row` on: [i][j in the panel], zero unless i < j.
    [[nodiscard]] const float* coefficients_of(std::size_t panel, std::size_t row) const {
        return &coefficients[(panel * (panel + 1) / 2 * kPanel + row) * kPanel];
    }
};

// H_jj = 0 makes column j dead. Raises damping tenfold, up to 1, while H + damping cannot be factored.
// NumericError for a negative H_jj and for an H that damping 1 does not repair. H must be finite.
[[nodiscard]] Feedback make_feedback(std::span<const float> hessian_CC, std::size_t columns, double damping,
                                     const Kernels& kernels, int threads);

}  // namespace pygolf
