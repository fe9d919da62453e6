// IEEE half precision as 16 raw bits, converted without hardware support so that every platform agrees.
//
//     bit 15 sign | bits 14..10 exponent, bias 15 | bits 9..0 fraction
//
// Thread safety: pure functions.
#pragma once

#include <bit>
#include <cstdint>

namespace pygolf {

inline constexpr float kFloat16Max = 65504.0f;
inline constexpr std::uint16_t kFloat16Infinity = 0x7c00;
inline constexpr std::uint16_t kFloat16SmallestSubnormal = 0x0001;  // 2^-24

// Nearest half, ties to even; above 65519.99 infinity; NaN stays NaN (quiet, payload dropped).
[[nodiscard]] constexpr std::uint16_t to_float16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (bits >> 16) & 0x8000;
    const std::uint32_t magnitude = bits & 0x7fffffff;
    std::uint32_t half = 0;
    if (magnitude > 0x7f800000) {
        half = 0x7e00;
    } else if (magnitude >= 0x477ff000) {  // 65520, halfway between 65504 and the next power of two
        half = kFloat16Infinity;
    } else if (magnitude <
               0x38800000) {  // below 2^-14: subnormal, in units of 2^-24 = the last place of 0.5f
        half = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000;
    } else {  // drop 13 fraction bits and move the exponent's bias from 127 to 15
        const std::uint32_t round_up_tie = (magnitude >> 13) & 1;
        half = (magnitude - 0x38000000 + 0x0fff + round_up_tie) >> 13;
    }
    return static_cast<std::uint16_t>(sign | half);
}

// Exact.
[[nodiscard]] constexpr float from_float16(std::uint16_t half) {
    const std::uint32_t sign = std::uint32_t{half} << 16 & 0x80000000;
    const std::uint32_t exponent = half >> 10 & 0x1f;
    const std::uint32_t fraction = half & 0x03ff;
    std::uint32_t magnitude = 0;
    if (exponent == 0) {
        magnitude = std::bit_cast<std::uint32_t>(static_cast<float>(fraction) * 0x1p-24f);
    } else if (exponent == 0x1f) {
        magnitude = 0x7f800000 | fraction << 13;
    } else {
        magnitude = (exponent + 112) << 23 | fraction << 13;
    }
    return std::bit_cast<float>(sign | magnitude);
}

}  // namespace pygolf
