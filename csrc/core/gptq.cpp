#include "pygolf/gptq.hpp"

#include <algorithm>
#include <cmath>

#include "gptq_feedback.hpp"
#include "gptq_tile.hpp"
#include "parallel.hpp"
#include "pygolf/error.hpp"
#include "pygolf/float16.hpp"
#include "simd_kernels.hpp"
#include "solver_checks.hpp"

namespace pygolf {
namespace {

void check_arguments(const GptqProblem& problem, const GptqOptions& options) {
    const auto [rows, columns, candidates, weight_RC, hessian_CC, clips_KR] = problem;
    if (rows == 0 || columns == 0 || candidates == 0) {
        fail<ArgumentError>("weight is ", rows, " x ", columns, " with ", candidates,
                            " clip candidates, expected at least one row, column and candidate");
    }
    check_size("weight", weight_RC.size(), rows * columns);
    check_size("hessian", hessian_CC.size(), columns * columns);
    check_size("clips", clips_KR.size(), candidates * rows);
    if (options.max_code < 1 || options.max_code > 127) {
        fail<ArgumentError>("max_code is ", options.max_code, ", expected 1 to 127 (31 for int6)");
    }
    if (!(options.damping > 0 && options.damping <= 1)) {
        fail<ArgumentError>("damping is ", options.damping,
                            ", expected above 0 and up to 1 (0.005 is usual)");
    }
    if (options.block_columns < 1) {
        fail<ArgumentError>("block_columns is ", options.block_columns,
                            ", expected 1 or more (128 is usual)");
    }
    check_threads(options.threads);
}

void check_finite(const char* name, std::span<const float> values, std::size_t columns) {
    const auto found = first_non_finite(values);
    if (!found) return;
    const std::size_t at = *found;
    fail<NumericError>(name, "[", at / columns, ", ", at % columns, "] is ", values[at],
                       ", expected a finite number; look for the step that made it");
}

// Beyond this no half-precision step times max_code reaches, and the solver's sums of squares could overflow.
void check_weight_range(const GptqProblem& problem, int max_code) {
    const float limit = kFloat16Max * static_cast<float>(max_code);
    float most = 0;
    for (const float value : problem.weight_RC) most = std::max(most, std::abs(value));
    if (most > limit) {
        fail<NumericError>("weight has an element of magnitude ", most, ", expected at most ", limit,
                           ", the largest that a half-precision step can code; rescale the matrix");
    }
}

// Rows without nonzero weights in live columns.
std::vector<bool> zero_rows(const GptqProblem& problem, const std::vector<std::size_t>& live) {
    std::vector<bool> zero(problem.rows);
    for (std::size_t row = 0; row < problem.rows; ++row) {
        const auto weights = problem.weight_RC.subspan(row * problem.columns, problem.columns);
        zero[row] = std::ranges::all_of(live, [&](std::size_t column) { return weights[column] == 0; });
    }
    return zero;
}

std::uint16_t step_of(float clip, int max_code) {
    const std::uint16_t step = to_float16(clip / static_cast<float>(max_code));
    return std::max(step, kFloat16SmallestSubnormal);
}

// Steps of all candidates as bits of a half, [K, R]; 0 in zero rows.
std::vector<std::uint16_t> steps_of(const GptqProblem& problem, int max_code, const std::vector<bool>& zero) {
    std::vector<std::uint16_t> steps_KR(problem.clips_KR.size());
    for (std::size_t i = 0; i < steps_KR.size(); ++i) {
        const float clip = problem.clips_KR[i];
        const std::size_t row = i % problem.rows;
        if (clip < 0) {
            fail<ArgumentError>("clips[", i / problem.rows, ", ", row, "] is ", clip,
                                ", expected 0 or more: the largest weight that the candidate codes");
        }
        if (zero[row]) continue;
        steps_KR[i] = step_of(clip, max_code);
        if (steps_KR[i] == kFloat16Infinity) {
            fail<NumericError>("clips[", i / problem.rows, ", ", row, "] is ", clip, ", expected at most ",
                               kFloat16Max * static_cast<float>(max_code),
                               ", the largest that a half-precision step can code; rescale the matrix");
        }
    }
    return steps_KR;
}

}  // namespace

GptqResult gptq_solve(const GptqProblem& problem, const GptqOptions& options) {
    check_arguments(problem, options);
    check_finite("weight", problem.weight_RC, problem.columns);
    check_finite("hessian", problem.hessian_CC, problem.columns);
    check_finite("clips", problem.clips_KR, problem.rows);
    check_weight_range(problem, options.max_code);

    const Kernels& kernels = supported_kernels().back();
    const Feedback feedback =
        make_feedback(problem.hessian_CC, problem.columns, options.damping, kernels, options.threads);
    const auto steps_KR = steps_of(problem, options.max_code, zero_rows(problem, feedback.order_N));

    GptqResult result;
    result.codes_RC.resize(problem.rows * problem.columns);
    result.scales_R.resize(problem.rows);
    result.choice_R.resize(problem.rows);
    result.error_R.resize(problem.rows);
    result.damping = feedback.damping;
    result.dead_columns = problem.columns - feedback.order_N.size();

    const TileContext context{problem, options, feedback, kernels, steps_KR};
    const std::size_t tiles = (problem.rows + kernels.float_lanes - 1) / kernels.float_lanes;
    parallel_for(tiles, options.threads, [&](std::size_t tile) { TileSolver(context, tile).solve(result); });
    return result;
}

}  // namespace pygolf
