// The spread of every row, column and code of a code tensor: chosen by the encoder, told to the decoder.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "entropy_model.hpp"
#include "pygolf/entropy.hpp"

namespace pygolf::entropy {

// Rows (columns) have classes of their own only if they are at least this long: what a decoder keeps for a
// line is small beside the line.
inline constexpr std::size_t kMinLine = 64;

inline constexpr int kSlopeBits = 6;
inline constexpr int kNoResiduals = kTables;  // instead of a residual class

// The spreads of the lines of one direction: class of line i = (slope * factor[i] >> kSlopeBits) +
// residual[i].
struct Lines {
    int slope = 0;                        // -128 to 127
    int residual_class = kNoResiduals;    // class of the residuals, which are coded as codes are
    std::vector<std::int32_t> residuals;  // [lines]; empty: all zero

    [[nodiscard]] bool vary() const { return slope != 0 || !residuals.empty(); }
};

// Code (i, j) is centre + a sample of the spread class base + class of row i + class of column j.
struct Spreads {
    std::int32_t centre = 0;
    int base = 0;
    Lines rows;
    Lines cols;
};

using Factors = std::span<const std::int16_t>;  // of the lines of one direction; empty: none
using Classes = std::vector<std::int16_t>;      // of the lines of one direction; empty: all zero

// What the factor of a line says of its class.
[[nodiscard]] inline int predicted_class(Factors factors, int slope, std::size_t line) {
    return factors.empty() ? 0 : slope * factors[line] >> kSlopeBits;
}

// The classes of `count` lines, clamped to [-4096, 4095].
[[nodiscard]] Classes line_classes(const Lines& lines, Factors factors, std::size_t count);

// For each column 1 if it is in the trellis, else 0; nothing without a trellis.
[[nodiscard]] std::vector<std::uint8_t> trellis_columns(const SideInformation& side, std::size_t cols);

// Spreads that make the codes and their own description short. rows * cols >= 1.
template <typename Code>
[[nodiscard]] Spreads choose_spreads(std::span<const Code> codes_RC, std::size_t rows, std::size_t cols,
                                     const SideInformation& side);
extern template Spreads choose_spreads(std::span<const std::int8_t>, std::size_t, std::size_t,
                                       const SideInformation&);
extern template Spreads choose_spreads(std::span<const std::int16_t>, std::size_t, std::size_t,
                                       const SideInformation&);
extern template Spreads choose_spreads(std::span<const std::int32_t>, std::size_t, std::size_t,
                                       const SideInformation&);

}  // namespace pygolf::entropy
