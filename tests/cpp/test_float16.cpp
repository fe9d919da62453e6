#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "pygolf/float16.hpp"

namespace pygolf {
namespace {

double value_of(unsigned half) {  // by the definition of the format
    const int exponent = static_cast<int>(half >> 10 & 31);
    const double fraction = half & 1023;
    const double magnitude =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    return half & 0x8000 ? -magnitude : magnitude;
}

TEST(Float16, EveryFiniteHalfSurvivesBothWays) {
    for (unsigned half = 0; half < 0x10000; ++half) {
        if ((half & 0x7c00) == 0x7c00) continue;
        const float value = from_float16(static_cast<std::uint16_t>(half));
        ASSERT_EQ(value, value_of(half)) << half;
        ASSERT_EQ(to_float16(value), half);
    }
}

TEST(Float16, RoundsToNearestAndTiesToEven) {
    for (unsigned half = 0; half < 0x7bff; ++half) {
        const auto middle = static_cast<float>((value_of(half) + value_of(half + 1)) / 2);  // exact in float
        const unsigned even = half + (half & 1);
        ASSERT_EQ(to_float16(middle), even) << half;
        ASSERT_EQ(to_float16(std::nextafter(middle, 0.0f)), half);
        ASSERT_EQ(to_float16(-std::nextafter(middle, 1e9f)), 0x8000 | (half + 1));
    }
}

TEST(Float16, BeyondTheRangeAndNotANumber) {
    EXPECT_EQ(to_float16(65519.996f), 0x7bff);
    EXPECT_EQ(to_float16(65520.0f), kFloat16Infinity);
    EXPECT_EQ(to_float16(-std::numeric_limits<float>::infinity()), 0xfc00);
    EXPECT_EQ(to_float16(std::numeric_limits<float>::denorm_min()), 0);
    EXPECT_TRUE(std::isnan(from_float16(to_float16(std::numeric_limits<float>::quiet_NaN()))));
    EXPECT_TRUE(std::isinf(from_float16(kFloat16Infinity)));
}

}  // namespace
}  // namespace pygolf
