// Values of a matrix that is stored as integer codes with one half-precision scale a row.
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

}  // namespace pygolf
