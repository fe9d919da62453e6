// What the solvers check of their arguments alike.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "pygolf/error.hpp"

namespace pygolf {

inline void check_size(std::string_view name, std::size_t found, std::size_t expected) {
    if (found == expected) return;
    fail<ArgumentError>(name, " has ", found, " elements, expected ", expected,
                        "; pass sizes as the weights have them");
}

inline void check_threads(int threads) {
    if (threads < 0) {
        fail<ArgumentError>("threads is ", threads, ", expected 0 (one a processor) or more");
    }
}

// Where the first NaN or infinity is. Exponent bits all ones: looks at every element without a branch, so
// that it vectorises.
[[nodiscard]] inline std::optional<std::size_t> first_non_finite(std::span<const float> values) {
    constexpr std::uint32_t exponent = 0x7f800000;
    const auto non_finite = [](float value) {
        return (std::bit_cast<std::uint32_t>(value) & exponent) == exponent;
    };
    bool any = false;
    for (const float value : values) any |= non_finite(value);
    if (!any) return std::nullopt;
    return static_cast<std::size_t>(std::ranges::find_if(values, non_finite) - values.begin());
}

}  // namespace pygolf
