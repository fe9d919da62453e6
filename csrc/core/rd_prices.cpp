#include <algorithm>
#include <numbers>

#include "rd_matrix.hpp"

namespace pygolf {
namespace {

// Squared spreads below this many squared steps count as this: such codes are 0 at any price.
constexpr double kLeastSpread = 1e-6;

// Squared spreads of the weights in steps: about row_R[i] * col_C[j].
struct Spreads {
    std::vector<double> row_R;
    std::vector<double> col_C;
};

Spreads spreads_of(const RdMatrix& matrix) {
    Spreads spreads{std::vector<double>(matrix.rows), std::vector<double>(matrix.columns)};
    double all = 0;
    for (std::size_t i = 0; i < matrix.rows; ++i) {
        const float* weight = matrix.weight_RC + i * matrix.columns;
        for (std::size_t j = 0; j < matrix.columns; ++j) {
            const double steps = double{weight[j]} / (double{matrix.step_row_R[i]} * matrix.step_col_C[j]);
            spreads.row_R[i] += steps * steps;
            spreads.col_C[j] += steps * steps;
        }
        all += spreads.row_R[i];
    }
    const auto columns = static_cast<double>(matrix.columns);
    for (double& row : spreads.row_R) row = std::max(row / columns, kLeastSpread);
    for (double& col : spreads.col_C) col = all > 0 ? std::max(col * columns / all, kLeastSpread) : 1.0;
    return spreads;
}

}  // namespace

RdPrices make_prices(const RdMatrix& matrix, float rate_lambda) {
    if (rate_lambda == 0) return {};
    const Spreads spreads = spreads_of(matrix);
    double weight = 0;  // mean (step / U_jj)^2 of a row whose step is 1
    for (std::size_t j = 0; j < matrix.columns; ++j) {
        const double share = matrix.step_col_C[j] / matrix.input_factor_CC[j * matrix.columns + j];
        weight += share * share / static_cast<double>(matrix.columns);
    }
    // A bell curve spends log2(e) / 2 * (value / spread)^2 bits, beside a constant.
    const double bit = rate_lambda * weight * std::numbers::log2e / 2;
    RdPrices prices{std::vector<float>(matrix.rows), std::vector<float>(matrix.columns)};
    for (std::size_t i = 0; i < matrix.rows; ++i) {
        const double step = matrix.step_row_R[i];
        prices.row_R[i] = static_cast<float>(bit * step * step / spreads.row_R[i]);
    }
    for (std::size_t j = 0; j < matrix.columns; ++j) {
        prices.col_C[j] = static_cast<float>(1 / spreads.col_C[j]);
    }
    return prices;
}

}  // namespace pygolf
