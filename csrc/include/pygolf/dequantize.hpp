// Values of a matrix that is stored as integer codes: with one half-precision scale a row, or with a step
// that follows a factor a row and a factor a column.
//
// Legend: R rows, C columns.
// Thread safety: pure function.
#pragma once

#include <cstdint>
#include <span>

namespace pygolf {

// value[r, c] = float(code[r, c]) * float(scale[r]), one rounding to float, so the same bits on every
// processor. Row-major; R is scales_R.size(). ArgumentError unless codes_RC and values_RC have R * C elements
// each.
void dequantize_rows(std::span<const std::int8_t> codes_RC, std::span<const std::uint16_t> scales_R,
                     std::span<float> values_RC);

// Factors are stored as integer logarithms: sixteenths of an octave.
inline constexpr int kLogsPerOctave = 16;

// 2^(log / 16) as a float: ldexp(T[log mod 16], floor(log / 16)), T[k] = 2^(k / 16) to nearest.
[[nodiscard]] float factor_of(int log);

// What the codes of a matrix mean. unit[r, c] = step * factor_of(row_logs[r] + col_logs[c]), one rounding to
// float. Without a trellis (one state) value = float(code) * unit, with one (pygolf/trellis.hpp, which gives
// odd column logarithms a meaning) value = float(2 * code + quantizer) * unit; one rounding to float.
struct FactorGrid {
    int states = 1;  // of the trellis: 1 (none), 4 or 8
    float step = 1;
    std::span<const std::int16_t> row_logs_R;
    std::span<const std::int16_t> col_logs_C;
};

// Row-major. ArgumentError for another number of states, or unless codes_RC and values_RC have R * C elements
// each.
void dequantize_factors(std::span<const std::int16_t> codes_RC, const FactorGrid& grid,
                        std::span<float> values_RC);

}  // namespace pygolf
