// The rate-distortion quantizer on rows of one matrix (see rd_quantize.hpp).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "rd_row.hpp"
#include "simd_kernels.hpp"

namespace pygolf {

// Legend: R rows, C columns of the matrix.
struct RdMatrix {
    std::size_t index;  // in the problem, for messages
    std::size_t rows;
    std::size_t columns;
    const float* weight_RC;
    const float* input_factor_CC;
    const float* output_factor_RR;  // null: no feedback between rows
    const float* step_row_R;
    const float* step_col_C;
    const std::uint8_t* plain_col_C;  // null: none
};

// What a bit costs in a row and column: price_ij = row_R[i] * col_C[j]. Empty without a rate term.
struct RdPrices {
    std::vector<float> row_R;
    std::vector<float> col_C;
};

[[nodiscard]] RdPrices make_prices(const RdMatrix& matrix, float rate_lambda);

struct RdContext {
    const RdMatrix& matrix;
    const RdPrices& prices;
    int states;
    const TrellisBranches& trellis;
    const RdKernels& row_kernels;
    const Kernels& kernels;
};

// Legend: rows of the solver in panels of P = kPanel, columns of a block in tiles of L = float_lanes; B =
// kRdBlock. Blocks of columns are solved one after the other, and their rows from the first to the last, so
// that what an element waits for is done, and all feedback from outside of a panel of rows and a block of
// columns is a matrix product.
class RdSolver {
  public:
    // Rows [first_row, first_row + rows): with an output factor they must be all of them.
    RdSolver(const RdContext& context, std::size_t first_row, std::size_t rows);

    // Writes the rows' codes and returns their sum of f^2.
    double solve(std::int16_t* codes_RC);

  private:
    struct Block {
        std::size_t first;
        std::size_t columns;
        std::size_t tiles;
    };

    void pack_output_factor();
    void load_block(const Block& block);
    void load_tile(const Block& block, std::size_t tile);
    void load_panel_feedback(const Block& block, std::size_t panel);
    void load_row_feedback(const Block& block, std::size_t row);
    void load_row(const Block& block, std::size_t row);
    void solve_row(const Block& block, std::size_t row, std::int16_t* codes);
    void write_codes(const Block& block, std::size_t row, std::int16_t* codes) const;
    void keep_residual(const Block& block, std::size_t row);

    [[nodiscard]] float* target(std::size_t panel, std::size_t tile) {
        return &target_PBL_[(panel * tiles_ + tile) * kPanel * lanes_];
    }
    // -V_ii f of a panel, by [column][row of the panel].
    [[nodiscard]] float* errors(std::size_t panel) { return &errors_RC_[panel * columns_ * kPanel]; }
    // D / V_ii of a tile, by [row][column of the tile], negative.
    [[nodiscard]] float* residuals(std::size_t tile) { return &residuals_BR_[tile * rows_ * lanes_]; }

    const RdContext& context_;
    std::size_t lanes_;  // L
    std::size_t columns_;
    std::size_t first_row_;
    std::size_t rows_;
    std::size_t panels_;
    std::size_t tiles_;  // of a whole block
    bool two_sided_;
    double error_ = 0;
    std::vector<int> state_R_;
    std::unique_ptr<float[]> target_PBL_;
    std::unique_ptr<float[]> errors_RC_;
    std::unique_ptr<float[]> factor_CL_;  // tile of U
    std::unique_ptr<float[]> factor_BB_;  // block of U on the diagonal, zero below it
    std::unique_ptr<float[]> output_RR_;  // V by panel of columns, then row, then column of the panel
    std::unique_ptr<float[]> residuals_BR_;
    std::unique_ptr<float[]> panel_feedback_PB_;
    // One row of the block.
    std::array<float, kRdBlock> row_feedback_{};
    std::array<float, kRdBlock> row_target_{};
    std::array<float, kRdBlock> step_{};
    std::array<float, kRdBlock> inverse_step_{};
    std::array<float, kRdBlock> weight_{};
    std::array<float, kRdBlock> shrink_{};
    std::array<float, kRdBlock> price_{};
    std::array<float, kRdBlock> value_{};
    std::array<float, kRdBlock> row_error_{};
    std::array<std::uint8_t, kRdBlock> plain_{};
};

}  // namespace pygolf
