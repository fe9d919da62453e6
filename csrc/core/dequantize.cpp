#include "pygolf/dequantize.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "pygolf/error.hpp"
#include "pygolf/float16.hpp"
#include "pygolf/trellis.hpp"

namespace pygolf {
namespace {

// 2^(k / 16), to nearest.
constexpr std::array<float, kLogsPerOctave> kSixteenths = {
    0x1.000000p+0F, 0x1.0b5586p+0F, 0x1.172b84p+0F, 0x1.2387a6p+0F, 0x1.306fe0p+0F, 0x1.3dea64p+0F,
    0x1.4bfdaep+0F, 0x1.5ab07ep+0F, 0x1.6a09e6p+0F, 0x1.7a1148p+0F, 0x1.8ace54p+0F, 0x1.9c4918p+0F,
    0x1.ae89fap+0F, 0x1.c199bep+0F, 0x1.d5818ep+0F, 0x1.ea4afap+0F};

// The units of a matrix depend on the sum of two logarithms alone: all that occur, from the lowest sum on.
class Units {
  public:
    explicit Units(const FactorGrid& grid) {
        const auto rows = std::ranges::minmax(grid.row_logs_R);
        const auto cols = std::ranges::minmax(grid.col_logs_C);
        lowest_ = rows.min + cols.min;
        for (int log = lowest_; log <= rows.max + cols.max; ++log)
            units_.push_back(grid.step * factor_of(log));
    }

    [[nodiscard]] float operator()(int log) const { return units_[static_cast<std::size_t>(log - lowest_)]; }

  private:
    int lowest_ = 0;
    std::vector<float> units_;
};

}  // namespace

float factor_of(int log) {
    return std::ldexp(kSixteenths[static_cast<unsigned>(log) % kLogsPerOctave], log >> 4);
}

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

void dequantize_factors(std::span<const std::int16_t> codes_RC, const FactorGrid& grid,
                        std::span<float> values_RC) {
    const std::size_t rows = grid.row_logs_R.size();
    const std::size_t columns = grid.col_logs_C.size();
    if (codes_RC.size() != rows * columns || values_RC.size() != codes_RC.size() ||
        !is_trellis_states(grid.states)) {
        fail<ArgumentError>("dequantize got ", codes_RC.size(), " codes, ", rows, " row and ", columns,
                            " column logarithms, room for ", values_RC.size(), " values and ", grid.states,
                            " states, expected rows x columns codes, as many values and 1, 4 or 8 states");
    }
    if (codes_RC.empty()) return;
    const Units units(grid);
    for (std::size_t row = 0, i = 0; row < rows; ++row) {
        TrellisWalk walk(grid.states);
        for (std::size_t column = 0; column < columns; ++column, ++i) {
            const bool inside = in_trellis(grid.col_logs_C[column]);
            const std::int32_t level = trellis_level(codes_RC[i], walk.quantizer(inside), grid.states);
            values_RC[i] = static_cast<float>(level) * units(grid.row_logs_R[row] + grid.col_logs_C[column]);
            walk.advance(codes_RC[i], inside);
        }
    }
}

}  // namespace pygolf
