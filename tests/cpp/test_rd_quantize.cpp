#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "../../csrc/core/rd_row.hpp"
#include "pygolf/error.hpp"
#include "pygolf/rd_quantize.hpp"
#include "pygolf/trellis.hpp"

namespace pygolf {
namespace {

// Inputs of one solve, owned. Factors are unit upper triangular with feedback of about 0.1 a column.
struct Case {
    std::size_t rows;
    std::size_t columns;
    std::vector<float> weight;
    std::vector<float> input_factor;
    std::vector<float> output_factor;
    std::vector<float> step_row;
    std::vector<float> step_col;
    std::vector<std::uint8_t> plain_col;
    RdOptions options{.states = 8, .threads = 1};
    std::vector<std::int16_t> codes;
    float error = 0;

    Case(std::size_t rows_, std::size_t columns_)
        : rows(rows_),
          columns(columns_),
          weight(rows * columns),
          step_row(rows, 0.3f),
          step_col(columns, 1.0f),
          codes(rows * columns) {
        std::mt19937 random(static_cast<unsigned>(rows * 1000 + columns));
        std::normal_distribution<float> normal;
        const auto factor = [&](std::size_t count) {
            std::vector<float> values(count * count);
            for (std::size_t i = 0; i < count; ++i) {
                values[i * count + i] = 1;
                for (std::size_t j = i + 1; j < count; ++j) values[i * count + j] = 0.1f * normal(random);
            }
            return values;
        };
        for (float& value : weight) value = normal(random);
        input_factor = factor(columns);
        output_factor = factor(rows);
    }

    void solve() {
        const RdProblem problem{.matrices = 1,
                                .rows = rows,
                                .columns = columns,
                                .weight_MRC = weight,
                                .input_factor_MCC = input_factor,
                                .output_factor_MRR = output_factor,
                                .step_row_MR = step_row,
                                .step_col_MC = step_col,
                                .plain_col_MC = plain_col};
        rd_quantize(problem, options, codes, std::span(&error, 1));
    }
};

template <typename E>
void expect_error(Case c, const std::string& part) {
    try {
        c.solve();
        FAIL() << "expected an error with '" << part << "'";
    } catch (const E& error) {
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
}

// sum of f^2 of decoded codes, from D = V^T f U by substitution in double precision.
double direct_error(const Case& c) {
    std::vector<double> f(c.rows * c.columns);
    double sum = 0;
    for (std::size_t i = 0; i < c.rows; ++i) {
        TrellisWalk walk(c.options.states);
        for (std::size_t j = 0; j < c.columns; ++j) {
            const std::int16_t code = c.codes[i * c.columns + j];
            const bool inside = c.plain_col.empty() || c.plain_col[j] == 0;
            const int value = trellis_level(code, walk.quantizer(inside), c.options.states);
            walk.advance(code, inside);
            double d = c.weight[i * c.columns + j] - double{c.step_row[i]} * c.step_col[j] * value;
            for (std::size_t a = 0; a <= i; ++a) {
                for (std::size_t b = 0; b <= j; ++b) {
                    const double vu =
                        double{c.output_factor[a * c.rows + i]} * c.input_factor[b * c.columns + j];
                    if (a < i || b < j) d -= vu * f[a * c.columns + b];
                }
            }
            f[i * c.columns + j] = d;
            sum += d * d;
        }
    }
    return sum;
}

TEST(RdQuantize, ErrorIsThatOfItsCodes) {
    for (const int states : {1, 4, 8}) {
        Case c(13, 140);
        c.options.states = states;
        c.solve();
        EXPECT_NEAR(c.error, direct_error(c), 1e-4 * c.error) << states;
        if (states == 1) continue;
        c.plain_col.assign(c.columns, 0);
        for (std::size_t j = 0; j < c.columns; j += 3) c.plain_col[j] = 1;
        c.solve();
        EXPECT_NEAR(c.error, direct_error(c), 1e-4 * c.error) << states;
    }
}

TEST(RdQuantize, ThreadsChangeNoBit) {
    Case c(400, 200);
    c.output_factor.clear();
    c.options.rate_lambda = 0.2f;
    c.solve();
    Case other = c;
    other.options.threads = 3;
    other.solve();
    EXPECT_EQ(other.codes, c.codes);
    EXPECT_EQ(other.error, c.error);
}

TEST(RdQuantize, PlainColumnsHaveThePlainQuantizerOfTwiceTheStep) {
    Case c(9, 200);
    c.plain_col.assign(c.columns, 1);
    c.solve();
    Case plain(9, 200);
    plain.options.states = 1;
    plain.step_row.assign(9, 0.6f);
    plain.solve();
    EXPECT_EQ(c.codes, plain.codes);
    EXPECT_NEAR(c.error, plain.error, 1e-5 * plain.error);
}

TEST(RdQuantize, PriceOfBitsTradesErrorForSmallerCodes) {
    double magnitude = std::numeric_limits<double>::infinity();
    double error = 0;
    for (const float rate_lambda : {0.0f, 0.2f, 1.0f}) {
        Case c(40, 300);
        c.options.rate_lambda = rate_lambda;
        c.solve();
        double sum = 0;
        for (const std::int16_t code : c.codes) sum += std::abs(code + 0.25);
        EXPECT_LT(sum, magnitude);
        EXPECT_GT(c.error, error);
        magnitude = sum;
        error = c.error;
    }
}

TEST(RdQuantize, KernelsOfAllInstructionSetsAgree) {
    Case c(1, kRdBlock);
    const std::vector<float> ones(kRdBlock, 1.0f);
    const std::vector<float> prices(kRdBlock, 0.01f);
    const std::vector<std::uint8_t> none(kRdBlock);
    const TrellisBranches trellis = branches_of(8);
    for (const auto kernel : {&RdKernels::plain, &RdKernels::viterbi}) {
        std::vector<std::vector<float>> values;
        std::vector<int> ends;
        for (const RdKernels& kernels : supported_rd_kernels()) {
            std::vector<float> error(kRdBlock);
            values.emplace_back(kRdBlock);
            const std::vector<float> inverse_step(kRdBlock, 3.0f);
            const RdRow row{kRdBlock,    c.input_factor.data(), inverse_step.data(),
                            ones.data(), ones.data(),           prices.data(),
                            none.data(), c.weight.data(),       values.back().data(),
                            error.data()};
            ends.push_back((kernels.*kernel)(row, trellis, 0));
        }
        EXPECT_EQ(values.front(), values.back());
        EXPECT_EQ(ends.front(), ends.back());
    }
}

TEST(RdQuantize, RefusesWhatItCannotCode) {
    const auto with = [](std::vector<float> Case::*field, std::size_t at, float value) {
        Case c(3, 4);
        (c.*field)[at] = value;
        return c;
    };
    const float nan = std::numeric_limits<float>::quiet_NaN();
    expect_error<NumericError>(with(&Case::weight, 6, nan), "weight[0, 1, 2] is nan");
    expect_error<NumericError>(with(&Case::input_factor, 15, 0), "input_factor[0, 3, 3] is 0");
    expect_error<NumericError>(with(&Case::output_factor, 4, -1), "output_factor[0, 1, 1] is -1");
    expect_error<NumericError>(with(&Case::step_row, 1, 0), "step_row[0, 1] is 0");
    expect_error<NumericError>(with(&Case::weight, 0, 1e6f), "the code of weight[0, 0, 0] is 1.66667e+06");
    Case c(3, 4);
    c.options.states = 16;
    expect_error<ArgumentError>(c, "states is 16, expected 1 (plain), 4 or 8");
    c.options = {.rate_lambda = nan};
    expect_error<ArgumentError>(c, "rate_lambda is nan");
    c.options = {.threads = -1};
    expect_error<ArgumentError>(c, "threads is -1");
    c = Case(3, 4);
    c.plain_col.assign(3, 0);
    expect_error<ArgumentError>(c, "plain_col has 3 elements, expected 4");
    expect_error<ArgumentError>(Case(0, 4), "1 x 0 x 4");
}

}  // namespace
}  // namespace pygolf
