#include "entropy_cost.hpp"

namespace pygolf::entropy {

CostTable::CostTable() : costs_(kHalves * kColumns) {
    for (int column = 0; column < kColumns; ++column) {
        for (const int quantizer : {0, 1}) fill(column, quantizer);
    }
}

void CostTable::fill(int column, int quantizer) {
    constexpr std::uint64_t kEscapeBits_q16 = 20 << 16;  // about what an escaped code costs
    const int spread_class = std::max(column - kWindow, 0);
    const auto first = static_cast<std::uint64_t>(quantizer);
    std::uint64_t area_q32 = quantizer == 0 ? std::uint64_t{1} << 32 : 0;  // the middle itself, once
    for (std::uint64_t halves = quantizer == 0 ? 2 : 1; halves < kHalves; halves += 2)
        area_q32 += 2 * exp2_negative(bell_exponent_q16(spread_class, halves));
    const std::int64_t log2_area_q16 = std::int64_t{log2_q16(area_q32)} - (32 << 16);
    for (std::uint64_t halves = first; halves < kHalves; halves += 2) {
        const auto bits_q16 =
            static_cast<std::int64_t>(std::min(bell_exponent_q16(spread_class, halves), kEscapeBits_q16));
        costs_[halves * kColumns + static_cast<std::size_t>(column)] =
            static_cast<std::uint16_t>((bits_q16 + log2_area_q16) >> (16 - kCostBits));
    }
}

const CostTable& cost_table() {
    static const CostTable table;
    return table;
}

int class_of_mean(std::uint64_t sum, std::uint64_t count) {
    if (sum == 0) return 0;
    constexpr int kLog2RootHalfPi = 21347;  // 2^16 * log2(sqrt(pi / 2))
    const int log2_spread =
        static_cast<int>(log2_q16(sum)) - static_cast<int>(log2_q16(count)) + kLog2RootHalfPi;
    return std::clamp(16 + ((log2_spread + (1 << 12)) >> 13), 0, kClasses - 1);
}

}  // namespace pygolf::entropy
