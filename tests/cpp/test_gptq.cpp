#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>

#include "gptq_cases.hpp"
#include "pygolf/error.hpp"
#include "pygolf/float16.hpp"
#include "pygolf/gptq.hpp"

namespace pygolf {
namespace {

using namespace testing_gptq;

template <typename E>
void expect_error(const Case& c, const std::string& part) {
    try {
        (void)c.solve();
        FAIL() << "expected an error with '" << part << "'";
    } catch (const E& error) {
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
}

TEST(Gptq, IdentityHessianGivesPlainRounding) {
    const Case c(37, 101);
    const GptqResult result = c.solve();
    EXPECT_EQ(result.codes_RC, plain_rounding(c));
    EXPECT_EQ(*std::ranges::max_element(result.codes_RC), 31);
}

TEST(Gptq, EqualsTextbookLoopExceptAtTies) {
    const std::pair<std::size_t, std::size_t> shapes[] = {{1, 1}, {1, 40},   {50, 1},
                                                          {3, 6}, {70, 131}, {33, 200}};
    for (const auto& [rows, columns] : shapes) {
        Case c(rows, columns, {0.8f});
        c.correlate(2 * columns + 8);
        if (columns > 100) c.kill_column(5).kill_column(columns - 1);
        const GptqResult result = c.solve();
        const Textbook expected = textbook(c, 0);
        std::size_t compared = 0;
        for (std::size_t r = 0; r < rows; ++r) {
            if (expected.margin[r] < 1e-5) continue;
            ++compared;
            for (std::size_t i = r * columns; i < (r + 1) * columns; ++i) {
                ASSERT_EQ(int{result.codes_RC[i]}, int{expected.codes[i]})
                    << rows << "x" << columns << " at " << i;
            }
        }
        EXPECT_GE(10 * compared, 9 * rows) << rows << "x" << columns;
    }
}

TEST(Gptq, ErrorIsUndampedErrorOfItsCodes) {
    Case c(40, 150, {1.0f, 0.7f});
    c.correlate(200);
    const GptqResult result = c.solve();
    for (std::size_t r = 0; r < c.rows; ++r) {
        const double direct = c.error(r, result.codes_RC, from_float16(result.scales_R[r]));
        EXPECT_NEAR(result.error_R[r], direct, 1e-4 * direct) << r;
    }
}

TEST(Gptq, ChoosesTheBestCandidateOfEachRow) {
    const std::vector<float> fractions = {1.0f, 0.9f, 0.8f, 0.7f, 0.6f};
    Case all(64, 96, fractions);
    all.correlate(120).options.max_code = 3;
    const GptqResult result = all.solve();
    std::vector<int> wins(fractions.size());
    for (std::size_t r = 0; r < all.rows; ++r) ++wins[static_cast<std::size_t>(result.choice_R[r])];
    EXPECT_GE(std::ranges::count_if(wins, [](int count) { return count > 0; }), 3);

    for (std::size_t k = 0; k < fractions.size(); ++k) {
        Case one(64, 96, {fractions[k]});
        one.correlate(120).options.max_code = 3;
        const GptqResult alone = one.solve();
        for (std::size_t r = 0; r < all.rows; ++r) {
            EXPECT_LE(result.error_R[r], alone.error_R[r]);
            if (result.choice_R[r] != static_cast<int>(k)) continue;
            EXPECT_EQ(result.scales_R[r], alone.scales_R[r]);
            EXPECT_TRUE(
                std::equal(&result.codes_RC[r * 96], &result.codes_RC[r * 96] + 96, &alone.codes_RC[r * 96]));
        }
    }
}

TEST(Gptq, FirstOfEqualCandidatesWins) {
    Case c(20, 30, {0.9f, 0.9f});
    c.correlate(40);
    EXPECT_EQ(std::ranges::count(c.solve().choice_R, 0), 20);
}

TEST(Gptq, NeverWorseThanRounding) {
    for (unsigned seed = 0; seed < 12; ++seed) {
        Case c(24, 90);
        c.correlate(seed % 3 == 0 ? 30 : 180, seed);  // also fewer inputs than columns: a singular Hessian
        const GptqResult result = c.solve();
        const auto rounded = plain_rounding(c);
        double solved = 0;
        double plain = 0;
        for (std::size_t r = 0; r < c.rows; ++r) {
            solved += c.error(r, result.codes_RC, step_of(c, 0, r));
            plain += c.error(r, rounded, step_of(c, 0, r));
        }
        EXPECT_LT(solved, 0.8 * plain) << seed;
    }
}

TEST(Gptq, DeadColumnsAreZeroAndInvisibleToTheOthers) {
    Case with(20, 50);
    with.correlate(80).kill_column(7).kill_column(31);
    Case without(20, 48);
    std::size_t to = 0;
    for (std::size_t i = 0; i < 50; ++i) {
        for (std::size_t j = 0; j < 50; ++j) {
            if (i != 7 && i != 31 && j != 7 && j != 31) without.hessian[to++] = with.hessian[i * 50 + j];
        }
    }
    to = 0;
    for (std::size_t i = 0; i < with.weight.size(); ++i) {
        if (i % 50 != 7 && i % 50 != 31) without.weight[to++] = with.weight[i];
    }
    without.clips = with.clips;
    const GptqResult a = with.solve();
    const GptqResult b = without.solve();
    EXPECT_EQ(a.dead_columns, 2u);
    EXPECT_EQ(a.error_R, b.error_R);
    to = 0;
    for (std::size_t i = 0; i < a.codes_RC.size(); ++i) {
        const bool dead = i % 50 == 7 || i % 50 == 31;
        EXPECT_EQ(int{a.codes_RC[i]}, dead ? 0 : int{b.codes_RC[to++]});
    }
}

TEST(Gptq, RankOneHessianIsSolvedWithoutMoreDamping) {
    Case c(16, 60);
    c.correlate(1);
    const GptqResult result = c.solve();
    EXPECT_EQ(result.damping, c.options.damping);
    for (std::size_t r = 0; r < c.rows; ++r) {
        EXPECT_LT(c.error(r, result.codes_RC, step_of(c, 0, r)),
                  0.05 * c.error(r, plain_rounding(c), step_of(c, 0, r)));
    }
}

TEST(Gptq, AllZeroHessianGivesZeros) {
    Case c(5, 9);
    c.scale_hessian(0.0f);
    const GptqResult result = c.solve();
    EXPECT_EQ(result.dead_columns, 9u);
    EXPECT_EQ(std::ranges::count(result.codes_RC, 0), 45);
    EXPECT_EQ(std::ranges::count(result.error_R, 0.0f), 5);
}

TEST(Gptq, ScaleOfTheHessianOnlyScalesTheError) {
    Case c(20, 64);
    c.correlate(100);
    const GptqResult result = c.solve();
    for (const float factor : {0x1p-60f, 0x1p60f}) {
        const GptqResult scaled = Case(c).scale_hessian(factor).solve();
        EXPECT_EQ(scaled.codes_RC, result.codes_RC);
        for (std::size_t r = 0; r < c.rows; ++r) EXPECT_EQ(scaled.error_R[r], factor * result.error_R[r]);
    }
}

TEST(Gptq, ColumnsOfWildlyDifferentSizeStayFinite) {
    Case c(20, 64);
    c.correlate(100);
    for (std::size_t i = 0; i < 64; ++i) {
        for (std::size_t j = 0; j < 64; ++j) {
            c.hessian[i * 64 + j] *= std::exp2(static_cast<float>(i % 25 + j % 25) - 24.0f);
        }
    }
    const GptqResult result = c.solve();
    for (std::size_t r = 0; r < c.rows; ++r) {
        EXPECT_LE(c.error(r, result.codes_RC, step_of(c, 0, r)),
                  c.error(r, plain_rounding(c), step_of(c, 0, r)));
    }
}

TEST(Gptq, IndefiniteHessianRaisesDampingOrIsRefused) {
    Case c(4, 2);
    c.hessian = {1.0f, 1.03f, 1.03f, 1.0f};  // least eigenvalue -0.03
    EXPECT_DOUBLE_EQ(c.solve().damping, 0.05);
    c.hessian = {1.0f, 1.004f, 1.004f, 1.0f};  // -0.004: damping 0.005 leaves a pivot, but too small a one
    EXPECT_DOUBLE_EQ(c.solve().damping, 0.05);
    c.hessian = {1.0f, 3.0f, 3.0f, 1.0f};
    expect_error<NumericError>(c, "not positive definite even with 1 of its mean diagonal");
    c.hessian = {1.0f, 0.0f, 0.0f, -1.0f};
    expect_error<NumericError>(c, "hessian[1, 1] is -1");
}

TEST(Gptq, NumbersThatAreNotFiniteAreNamed) {
    Case c(3, 4);
    const auto with = [&c](std::vector<float> Case::*field, std::size_t at, float value) {
        Case broken = c;
        (broken.*field)[at] = value;
        return broken;
    };
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float infinity = std::numeric_limits<float>::infinity();
    expect_error<NumericError>(with(&Case::weight, 6, nan), "weight[1, 2] is nan");
    expect_error<NumericError>(with(&Case::hessian, 11, -infinity), "hessian[2, 3] is -inf");
    expect_error<NumericError>(with(&Case::clips, 2, infinity), "clips[0, 2] is inf");
    expect_error<NumericError>(with(&Case::weight, 0, 1e30f), "weight has an element of magnitude 1e+30");
    expect_error<NumericError>(with(&Case::clips, 1, 1e7f), "clips[0, 1] is 1e+07");
    expect_error<ArgumentError>(with(&Case::clips, 1, -0.5f), "clips[0, 1] is -0.5");
}

TEST(Gptq, StepsAreClipsInHalfPrecisionWithoutFloor) {
    Case c(3, 4);
    c.weight = {0, 0, 0, 0, 1e-9f, -1e-9f, 0, 0, 2e-4f, 1e-4f, -2e-4f, 0};
    c.clips = {0.5f, 1e-9f, 2e-4f};
    const GptqResult result = c.solve();
    EXPECT_EQ(result.scales_R, (std::vector<std::uint16_t>{0, 1, to_float16(2e-4f / 31)}));
    // 1e-4 is 15.5 of the steps asked for and 15.53 of the steps that half precision has.
    EXPECT_EQ(result.codes_RC, (std::vector<std::int8_t>{0, 0, 0, 0, 0, 0, 0, 0, 31, 16, -31, 0}));
}

TEST(Gptq, ThreadsAndBlocksChangeNoBit) {
    Case c(150, 300, {1.0f, 0.8f, 0.6f});
    c.correlate(250);
    const GptqResult expected = c.solve();
    const auto same = [&](const GptqResult& other) {
        return other.codes_RC == expected.codes_RC && other.scales_R == expected.scales_R &&
               other.choice_R == expected.choice_R && other.error_R == expected.error_R;
    };
    for (const int threads : {0, 2, 3, 7}) {
        c.options.threads = threads;
        EXPECT_TRUE(same(c.solve())) << threads;
    }
    for (const int block : {1, 6, 50, 100000}) {
        c.options.block_columns = block;
        EXPECT_TRUE(same(c.solve())) << block;
    }
}

TEST(Gptq, RefusesArgumentsThatDoNotFit) {
    Case c(2, 3);
    c.weight.pop_back();
    expect_error<ArgumentError>(c, "weight has 5 elements, expected 6");
    c = Case(2, 3);
    c.hessian.resize(4);
    expect_error<ArgumentError>(c, "hessian has 4 elements, expected 9");
    c = Case(2, 3);
    c.options.max_code = 128;
    expect_error<ArgumentError>(c, "max_code is 128");
    c.options = {.damping = 0};
    expect_error<ArgumentError>(c, "damping is 0");
    c.options = {.block_columns = 0};
    expect_error<ArgumentError>(c, "block_columns is 0");
    c.options = {.threads = -1};
    expect_error<ArgumentError>(c, "threads is -1");
    expect_error<ArgumentError>(Case(0, 3), "0 x 3");
}

}  // namespace
}  // namespace pygolf
