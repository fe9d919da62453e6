// GPTQ of one tile: a few rows side by side, with all their candidates (see gptq.hpp and simd_kernels.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "gptq_feedback.hpp"
#include "pygolf/gptq.hpp"
#include "simd_kernels.hpp"

namespace pygolf {

// What all tiles of a matrix share. Holds references: it must not outlive its makers.
struct TileContext {
    const GptqProblem& problem;
    const GptqOptions& options;
    const Feedback& feedback;
    const Kernels& kernels;
    std::span<const std::uint16_t> steps_KR;  // bits of a half; 0 in rows of zeros
};

// Legend: L rows of the tile, K candidates, N columns in coding order, padded to whole panels, B columns of a
// block.
class TileSolver {
  public:
    TileSolver(const TileContext& context, std::size_t tile);

    // Writes the tile's rows of every field that has rows. Tiles may be solved by different threads.
    void solve(GptqResult& result);

  private:
    void load_weights();
    void load_steps();
    void quantize_block(std::size_t first_panel, std::size_t last_panel, std::size_t candidate);
    void apply_feedback(std::size_t first_panel, std::size_t last_panel);
    void write_row(std::size_t lane, GptqResult& result) const;
    [[nodiscard]] double error(std::size_t candidate, std::size_t lane) const;

    [[nodiscard]] float* weights(std::size_t candidate, std::size_t column) {
        return &weights_KNL_[(candidate * columns_ + column) * lanes_];
    }
    [[nodiscard]] float* residuals(std::size_t candidate, std::size_t column_in_block) {
        return &residuals_KBL_[(candidate * block_ + column_in_block) * lanes_];
    }

    const TileContext& context_;
    std::size_t lanes_;    // L
    std::size_t columns_;  // N
    std::size_t block_;    // B
    std::size_t first_row_;
    std::size_t rows_;  // that exist: fewer than L in the last tile
    std::unique_ptr<float[]> original_NL_;
    std::unique_ptr<float[]> weights_KNL_;  // with feedback; codes, once a column is coded
    std::unique_ptr<float[]> residuals_KBL_;
    std::vector<float> steps_KL_;
    std::vector<double> damped_error_KL_;     // sum of e^2
    std::vector<double> residual_square_KL_;  // sum of d^2
};

}  // namespace pygolf
