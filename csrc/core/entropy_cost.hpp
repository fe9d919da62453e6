// What codes cost in bits by their spread class, in integers: the encoder's yardstick.
//
// Thread safety: pure functions.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "entropy_model.hpp"

namespace pygolf::entropy {

inline constexpr int kCostBits = 8;  // costs are in 1/256 bit
inline constexpr int kWindow = 16;   // classes looked up at once

[[nodiscard]] inline std::uint64_t magnitude(std::int64_t code) {
    return static_cast<std::uint64_t>(std::abs(code));
}

// How far a code is from the middle of its curve, in halves: 2 |code| for quantizer 0, |2 code + 1| for 1.
[[nodiscard]] inline std::uint64_t distance(std::int64_t code, std::uint32_t quantizer) {
    return magnitude(2 * code + quantizer);
}

// Cost of a distance in classes -kWindow .. kTables + kWindow - 1; a class below 0 is as 0.
class CostTable {
  public:
    CostTable();

    // Costs in the classes spread_class, spread_class + 1 ... spread_class + kWindow - 1, for a code without
    // the low bits that spread_class shifts out (and with them the half of quantizer 1).
    [[nodiscard]] const std::uint16_t* window(std::uint64_t halves, int spread_class) const {
        const int from = std::clamp(spread_class, -kWindow, kClasses - 1);
        const int shift = shift_of(std::max(from, 0));
        if (shift > 0) halves = halves >> shift & ~std::uint64_t{1};
        halves = std::min(halves, kHalves - 2 + (halves & 1));
        return &costs_[halves * kColumns +
                       static_cast<std::size_t>(from - kClassesPerOctave * shift + kWindow)];
    }

  private:
    static constexpr std::uint64_t kHalves = 512;
    static constexpr int kColumns = kWindow + kTables + kWindow;

    void fill(int column, int quantizer);

    std::vector<std::uint16_t> costs_;  // [halves, class]
};

[[nodiscard]] const CostTable& cost_table();

// The class of a bell curve whose mean distance is sum / count codes: 16 + 8 log2(mean * sqrt(pi / 2)).
[[nodiscard]] int class_of_mean(std::uint64_t sum, std::uint64_t count);

}  // namespace pygolf::entropy
