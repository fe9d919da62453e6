#include "entropy_cost.hpp"

namespace pygolf::entropy {

CostTable::CostTable() : costs_(kMagnitudes * kColumns) {
    for (int column = 0; column < kColumns; ++column) fill(column);
}

void CostTable::fill(int column) {
    constexpr std::uint64_t kEscapeBits_q16 = 20 << 16;  // about what an escaped code costs
    const int spread_class = std::max(column - kWindow, 0);
    std::uint64_t area_q32 = std::uint64_t{1} << 32;
    for (std::uint64_t m = 1; m < kMagnitudes; ++m)
        area_q32 += 2 * exp2_negative(bell_exponent_q16(spread_class, m));
    const std::uint64_t log2_area_q16 = log2_q16(area_q32) - (32 << 16);
    for (std::uint64_t m = 0; m < kMagnitudes; ++m) {
        const std::uint64_t bits_q16 =
            std::min(bell_exponent_q16(spread_class, m), kEscapeBits_q16) + log2_area_q16;
        costs_[m * kColumns + static_cast<std::size_t>(column)] =
            static_cast<std::uint16_t>(bits_q16 >> (16 - kCostBits));
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
