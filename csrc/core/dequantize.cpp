#include "pygolf/dequantize.hpp"

#include "pygolf/error.hpp"
#include "pygolf/float16.hpp"

namespace pygolf {

void dequantize_rows(std::span<const std::int8_t> codes_RC, std::span<const std::uint16_t> scales_R,
                     std::span<float> values_RC) {
    const std::size_t rows = scales_R.size();
    const std::size_t columns = rows == 0 ? 0 : codes_RC.size() / rows;
    if (codes_RC.size() != rows * columns || values_RC.size() != codes_RC.size()) {
        fail<ArgumentError>("dequantize got ", codes_RC.size(), " codes, ", rows, " row scales and room for ",
                            values_RC.size(), " values, expected rows x columns codes and as many values");
    }
    for (std::size_t row = 0; row < rows; ++row) {
        const float scale = from_float16(scales_R[row]);
        for (std::size_t i = row * columns; i < (row + 1) * columns; ++i) {
            values_RC[i] = static_cast<float>(codes_RC[i]) * scale;
        }
    }
}

}  // namespace pygolf
