#include "gptq_tile.hpp"

#include <algorithm>
#include <array>

#include "pygolf/float16.hpp"

namespace pygolf {

TileSolver::TileSolver(const TileContext& context, std::size_t tile)
    : context_(context),
      lanes_(context.kernels.float_lanes),
      columns_(context.feedback.panels * kPanel),
      block_((static_cast<std::size_t>(context.options.block_columns) + kPanel - 1) / kPanel * kPanel),
      first_row_(tile * lanes_),
      rows_(std::min(lanes_, context.problem.rows - first_row_)),
      steps_KL_(context.problem.candidates * lanes_),
      damped_error_KL_(steps_KL_.size()),
      residual_square_KL_(steps_KL_.size()) {
    block_ = std::min(block_, columns_);
    const std::size_t candidates = context.problem.candidates;
    original_NL_ = std::make_unique_for_overwrite<float[]>(columns_ * lanes_);
    weights_KNL_ = std::make_unique_for_overwrite<float[]>(candidates * columns_ * lanes_);
    residuals_KBL_ = std::make_unique_for_overwrite<float[]>(candidates * block_ * lanes_);
}

void TileSolver::solve(GptqResult& result) {
    load_weights();
    load_steps();
    const std::size_t panels = context_.feedback.panels;
    const std::size_t panels_per_block = std::max<std::size_t>(block_ / kPanel, 1);
    for (std::size_t first = 0; first < panels; first += panels_per_block) {
        const std::size_t last = std::min(first + panels_per_block, panels);
        for (std::size_t k = 0; k < context_.problem.candidates; ++k) quantize_block(first, last, k);
        apply_feedback(first, last);
    }
    for (std::size_t lane = 0; lane < rows_; ++lane) write_row(lane, result);
}

// Lanes and columns that do not exist hold zeros, which are coded as zeros without error.
void TileSolver::load_weights() {
    const auto& [problem, options, feedback, kernels, steps_KR] = context_;
    std::fill_n(original_NL_.get(), columns_ * lanes_, 0.0f);
    for (std::size_t lane = 0; lane < rows_; ++lane) {
        const auto row = problem.weight_RC.subspan((first_row_ + lane) * problem.columns, problem.columns);
        for (std::size_t n = 0; n < feedback.order_N.size(); ++n) {
            original_NL_[n * lanes_ + lane] = row[feedback.order_N[n]];
        }
    }
    for (std::size_t k = 0; k < problem.candidates; ++k) {
        std::copy_n(original_NL_.get(), columns_ * lanes_, weights(k, 0));
    }
}

// Rows of zeros and lanes that do not exist get step 1 instead of 0, which keeps divisions finite.
void TileSolver::load_steps() {
    const std::size_t rows = context_.problem.rows;
    for (std::size_t k = 0; k < context_.problem.candidates; ++k) {
        for (std::size_t lane = 0; lane < lanes_; ++lane) {
            const std::uint16_t step = lane < rows_ ? context_.steps_KR[k * rows + first_row_ + lane] : 0;
            steps_KL_[k * lanes_ + lane] = step == 0 ? 1.0f : from_float16(step);
        }
    }
}

// Codes the panels [first_panel, last_panel) of one candidate, from left to right.
void TileSolver::quantize_block(std::size_t first_panel, std::size_t last_panel, std::size_t candidate) {
    const auto& [problem, options, feedback, kernels, steps_KR] = context_;
    const std::size_t first_column = first_panel * kPanel;
    std::array<float, kMostLanes> damped_error;  // floats within a panel, doubles across panels
    std::array<float, kMostLanes> residual_square;
    for (std::size_t panel = first_panel; panel < last_panel; ++panel) {
        const std::size_t column = panel * kPanel;
        kernels.update_float(weights(candidate, column), residuals(candidate, 0),
                             feedback.coefficients_of(panel, first_column), column - first_column);
        kernels.quantize({.weight_PL = weights(candidate, column),
                          .original_PL = &original_NL_[column * lanes_],
                          .step_L = &steps_KL_[candidate * lanes_],
                          .feedback_PP = feedback.coefficients_of(panel, column),
                          .pivot_P = &feedback.pivots[column],
                          .max_code = static_cast<float>(options.max_code),
                          .residual_PL = residuals(candidate, column - first_column),
                          .damped_error_L = damped_error.data(),
                          .residual_square_L = residual_square.data()});
        for (std::size_t lane = 0; lane < lanes_; ++lane) {
            damped_error_KL_[candidate * lanes_ + lane] += damped_error[lane];
            residual_square_KL_[candidate * lanes_ + lane] += residual_square[lane];
        }
    }
}

// Adds the feedback of a coded block to all later columns. Candidates are the inner loop, so that they share
// the coefficients while those are in the cache.
void TileSolver::apply_feedback(std::size_t first_panel, std::size_t last_panel) {
    const Feedback& feedback = context_.feedback;
    for (std::size_t panel = last_panel; panel < feedback.panels; ++panel) {
        const float* coefficients = feedback.coefficients_of(panel, first_panel * kPanel);
        for (std::size_t k = 0; k < context_.problem.candidates; ++k) {
            context_.kernels.update_float(weights(k, panel * kPanel), residuals(k, 0), coefficients,
                                          (last_panel - first_panel) * kPanel);
        }
    }
}

double TileSolver::error(std::size_t candidate, std::size_t lane) const {
    const std::size_t i = candidate * lanes_ + lane;
    const Feedback& feedback = context_.feedback;
    return std::max(damped_error_KL_[i] - feedback.damping * residual_square_KL_[i], 0.0) * feedback.unit;
}

void TileSolver::write_row(std::size_t lane, GptqResult& result) const {
    const auto& [problem, options, feedback, kernels, steps_KR] = context_;
    std::size_t best = 0;
    for (std::size_t k = 1; k < problem.candidates; ++k) {
        if (error(k, lane) < error(best, lane)) best = k;
    }
    const std::size_t row = first_row_ + lane;
    result.scales_R[row] = steps_KR[best * problem.rows + row];
    result.choice_R[row] = static_cast<std::int32_t>(best);
    result.error_R[row] = static_cast<float>(error(best, lane));
    const float* codes = &weights_KNL_[best * columns_ * lanes_ + lane];
    for (std::size_t n = 0; n < feedback.order_N.size(); ++n) {
        result.codes_RC[row * problem.columns + feedback.order_N[n]] =
            static_cast<std::int8_t>(codes[n * lanes_]);
    }
}

}  // namespace pygolf
