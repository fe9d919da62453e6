#include "rd_matrix.hpp"

#include <algorithm>
#include <cmath>

#include "pygolf/error.hpp"

namespace pygolf {
namespace {

static_assert(kRdBlock % kMostLanes == 0);

std::size_t groups(std::size_t count, std::size_t size) { return (count + size - 1) / size; }

}  // namespace

RdSolver::RdSolver(const RdContext& context, std::size_t first_row, std::size_t rows)
    : context_(context),
      lanes_(context.kernels.float_lanes),
      columns_(context.matrix.columns),
      first_row_(first_row),
      rows_(rows),
      panels_(groups(rows, kPanel)),
      tiles_(kRdBlock / lanes_),
      two_sided_(context.matrix.output_factor_RR != nullptr),
      state_R_(rows) {
    shrink_.fill(1.0f);
    target_PBL_ = std::make_unique_for_overwrite<float[]>(panels_ * kPanel * kRdBlock);
    errors_RC_ = std::make_unique<float[]>(panels_ * kPanel * columns_);
    factor_CL_ = std::make_unique_for_overwrite<float[]>(columns_ * lanes_);
    factor_BB_ = std::make_unique_for_overwrite<float[]>(kRdBlock * kRdBlock);
    if (!two_sided_) return;
    panel_feedback_PB_ = std::make_unique_for_overwrite<float[]>(kPanel * kRdBlock);
    residuals_BR_ = std::make_unique_for_overwrite<float[]>(rows_ * kRdBlock);
    pack_output_factor();
}

void RdSolver::pack_output_factor() {
    output_RR_ = std::make_unique<float[]>(panels_ * kPanel * rows_);
    for (std::size_t panel = 0; panel < panels_; ++panel) {
        const std::size_t first = panel * kPanel;
        const std::size_t columns = std::min(kPanel, rows_ - first);
        for (std::size_t row = 0; row < first + columns; ++row) {
            std::copy_n(context_.matrix.output_factor_RR + row * rows_ + first, columns,
                        &output_RR_[(panel * rows_ + row) * kPanel]);
        }
    }
}

double RdSolver::solve(std::int16_t* codes_RC) {
    for (std::size_t first = 0; first < columns_; first += kRdBlock) {
        const std::size_t columns = std::min(kRdBlock, columns_ - first);
        const Block block{first, columns, groups(columns, lanes_)};
        load_block(block);
        for (std::size_t panel = 0; panel < panels_; ++panel) {
            if (two_sided_) load_panel_feedback(block, panel);
            const std::size_t end = std::min(rows_, (panel + 1) * kPanel);
            for (std::size_t row = panel * kPanel; row < end; ++row) {
                solve_row(block, row, codes_RC + (first_row_ + row) * columns_ + first);
            }
        }
    }
    return error_;
}

// The block's weights with the feedback of all columns before it, and its part of U.
void RdSolver::load_block(const Block& block) {
    const float* factor = context_.matrix.input_factor_CC;
    std::fill_n(factor_BB_.get(), kRdBlock * kRdBlock, 0.0f);
    for (std::size_t j = 0; j < block.columns; ++j) {
        const float* from = factor + (block.first + j) * columns_ + block.first;
        std::copy(from + j, from + block.columns, &factor_BB_[j * kRdBlock + j]);
    }
    for (std::size_t tile = 0; tile < block.tiles; ++tile) load_tile(block, tile);
}

// Columns and rows that do not exist hold zeros.
void RdSolver::load_tile(const Block& block, std::size_t tile) {
    const RdMatrix& matrix = context_.matrix;
    const std::size_t first = block.first + tile * lanes_;
    const std::size_t columns = std::min(lanes_, columns_ - first);
    std::fill_n(factor_CL_.get(), block.first * lanes_, 0.0f);
    for (std::size_t j = 0; j < block.first; ++j) {
        std::copy_n(matrix.input_factor_CC + j * columns_ + first, columns, &factor_CL_[j * lanes_]);
    }
    for (std::size_t panel = 0; panel < panels_; ++panel) {
        float* to = target(panel, tile);
        std::fill_n(to, kPanel * lanes_, 0.0f);
        for (std::size_t row = panel * kPanel; row < std::min(rows_, (panel + 1) * kPanel); ++row) {
            const float* weight = matrix.weight_RC + (first_row_ + row) * columns_ + first;
            std::copy_n(weight, columns, to + row % kPanel * lanes_);
        }
        context_.kernels.update_float(to, factor_CL_.get(), errors(panel), block.first);
    }
}

// What the rows above the panel have left to its rows.
void RdSolver::load_panel_feedback(const Block& block, std::size_t panel) {
    std::fill_n(panel_feedback_PB_.get(), kPanel * kRdBlock, 0.0f);
    const float* factor = &output_RR_[panel * rows_ * kPanel];
    for (std::size_t tile = 0; tile < block.tiles; ++tile) {
        context_.kernels.update_float(&panel_feedback_PB_[tile * kPanel * lanes_], residuals(tile), factor,
                                      panel * kPanel);
    }
}

// The same for one row, with the rows above it in its own panel.
void RdSolver::load_row_feedback(const Block& block, std::size_t row) {
    const std::size_t panel = row / kPanel;
    for (std::size_t tile = 0; tile < block.tiles; ++tile) {
        float* to = &row_feedback_[tile * lanes_];
        std::copy_n(&panel_feedback_PB_[(tile * kPanel + row % kPanel) * lanes_], lanes_, to);
        for (std::size_t above = panel * kPanel; above < row; ++above) {
            const float factor = output_RR_[(panel * rows_ + above) * kPanel + row % kPanel];
            const float* residual = residuals(tile) + above * lanes_;
            for (std::size_t l = 0; l < lanes_; ++l) to[l] += factor * residual[l];
        }
    }
}

void RdSolver::load_row(const Block& block, std::size_t row) {
    for (std::size_t tile = 0; tile < block.tiles; ++tile) {
        const float* from = target(row / kPanel, tile) + row % kPanel * lanes_;
        for (std::size_t l = 0; l < lanes_; ++l) {
            row_target_[tile * lanes_ + l] = from[l] + row_feedback_[tile * lanes_ + l];
        }
    }
    const float step_row = context_.matrix.step_row_R[first_row_ + row];
    for (std::size_t j = 0; j < block.columns; ++j) {
        step_[j] = step_row * context_.matrix.step_col_C[block.first + j];
        inverse_step_[j] = 1.0f / step_[j];
        weight_[j] = step_[j] / factor_BB_[j * kRdBlock + j];
    }
    if (context_.matrix.plain_col_C) {
        std::copy_n(context_.matrix.plain_col_C + block.first, block.columns, plain_.data());
    }
    const RdPrices& prices = context_.prices;
    if (prices.row_R.empty()) return;
    for (std::size_t j = 0; j < block.columns; ++j) {
        price_[j] = prices.row_R[first_row_ + row] * prices.col_C[block.first + j];
        shrink_[j] = weight_[j] * weight_[j] / (weight_[j] * weight_[j] + price_[j]);
    }
}

void RdSolver::solve_row(const Block& block, std::size_t row, std::int16_t* codes) {
    if (two_sided_) load_row_feedback(block, row);
    load_row(block, row);
    const RdRow problem{block.columns,  factor_BB_.get(), inverse_step_.data(), shrink_.data(),
                        weight_.data(), price_.data(),    plain_.data(),        row_target_.data(),
                        value_.data(),  row_error_.data()};
    const auto solve = context_.states > 1 ? context_.row_kernels.viterbi : context_.row_kernels.plain;
    state_R_[row] = solve(problem, context_.trellis, state_R_[row]);
    float sum = 0;
    float* errors_of_row = errors(row / kPanel) + block.first * kPanel + row % kPanel;
    for (std::size_t j = 0; j < block.columns; ++j) {
        sum += row_error_[j] * row_error_[j];
        errors_of_row[j * kPanel] = -row_error_[j];
    }
    // What the row's own columns answer for is V_ii f.
    const double pivot = two_sided_ ? context_.matrix.output_factor_RR[row * rows_ + row] : 1.0;
    error_ += sum / (pivot * pivot);
    write_codes(block, row, codes);
    if (two_sided_) keep_residual(block, row);
}

// Of a quantizer with the odd multiples, the values are odd: k = (value - 1) / 2, which rounding down gives.
void RdSolver::write_codes(const Block& block, std::size_t row, std::int16_t* codes) const {
    const float scale = context_.states > 1 ? 0.5f : 1.0f;
    for (std::size_t j = 0; j < block.columns; ++j) {
        const float code = std::floor(value_[j] * scale);
        if (!(code >= -32768.0f && code <= 32767.0f)) {
            fail<NumericError>("the code of weight[", context_.matrix.index, ", ", first_row_ + row, ", ",
                               block.first + j, "] is ", code, ", expected 16 bits; take a larger step");
        }
        codes[j] = static_cast<std::int16_t>(code);
    }
}

// -D / V_ii, for the rows below. D is all that the row is off, the feedback from its own columns included.
void RdSolver::keep_residual(const Block& block, std::size_t row) {
    const RdMatrix& matrix = context_.matrix;
    const float scale = -1.0f / matrix.output_factor_RR[row * rows_ + row];
    const float* weight = matrix.weight_RC + row * columns_ + block.first;
    for (std::size_t tile = 0; tile < block.tiles; ++tile) {
        float* to = residuals(tile) + row * lanes_;
        std::fill_n(to, lanes_, 0.0f);
        const std::size_t first = tile * lanes_;
        for (std::size_t l = 0; l < std::min(lanes_, block.columns - first); ++l) {
            const std::size_t j = first + l;
            to[l] = (weight[j] + row_feedback_[j] - value_[j] * step_[j]) * scale;
        }
    }
}

}  // namespace pygolf
