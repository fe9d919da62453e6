// Which classes the lines of one direction get, given what each would cost. Encoder only.
//
// Thread safety: pure functions.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "entropy_cost.hpp"
#include "entropy_spreads.hpp"

namespace pygolf::entropy {

// Codes of a line that are looked at, so that their costs add up to less than 2^32.
inline constexpr std::size_t kSamples = std::size_t{1} << 19;

// Costs of a line's codes in the classes first .. first + kWindow - 1.
struct Window {
    int first = 0;
    std::array<std::uint32_t, kWindow> costs{};

    [[nodiscard]] int best() const {
        return first + static_cast<int>(std::ranges::min_element(costs) - costs.begin());
    }
    [[nodiscard]] std::uint32_t cost(int spread_class) const {
        return costs[static_cast<std::size_t>(std::clamp(spread_class - first, 0, kWindow - 1))];
    }
};

struct Choice {
    Lines lines;
    int base = 0;  // class of a line with neither prediction nor residual
    std::uint64_t cost = std::numeric_limits<std::uint64_t>::max();
};

// The choice for which codes and residuals together cost least, among sensible ones.
[[nodiscard]] Choice choose_lines(std::span<const Window> windows, Factors factors);

}  // namespace pygolf::entropy
