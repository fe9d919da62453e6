#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "../../csrc/core/cholesky.hpp"
#include "../../csrc/core/simd_kernels.hpp"

namespace pygolf {
namespace {

template <typename T>
std::vector<T> random_values(std::size_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    std::vector<T> values(count);
    for (T& value : values) value = static_cast<T>(normal(random));
    return values;
}

template <typename T>
void check_update(std::size_t lanes, void (*update)(T*, const T*, const T*, std::size_t), double tolerance) {
    for (const std::size_t depth : {0, 1, 7}) {
        const auto before = random_values<T>(kPanel * lanes, 1);
        const auto left = random_values<T>(depth * lanes, 2);
        const auto right = random_values<T>(depth * kPanel, 3);
        auto after = before;
        update(after.data(), left.data(), right.data(), depth);
        for (std::size_t i = 0; i < before.size(); ++i) {
            double expected = before[i];
            for (std::size_t d = 0; d < depth; ++d) {
                expected += double{left[d * lanes + i % lanes]} * right[d * kPanel + i / lanes];
            }
            EXPECT_NEAR(after[i], expected, tolerance) << depth << " " << i;
        }
    }
}

TEST(SimdKernels, UpdateOfEveryInstructionSet) {
    for (const Kernels& kernels : supported_kernels()) {
        SCOPED_TRACE(kernels.name);
        check_update<float>(kernels.float_lanes, kernels.update_float, 1e-5);
        check_update<double>(kernels.double_lanes, kernels.update_double, 1e-13);
    }
}

TEST(SimdKernels, QuantizeOfEveryInstructionSet) {
    for (const Kernels& kernels : supported_kernels()) {
        SCOPED_TRACE(kernels.name);
        const std::size_t lanes = kernels.float_lanes;
        const auto original = random_values<float>(kPanel * lanes, 1);
        const auto pivot = random_values<float>(kPanel, 2);
        const auto feedback = random_values<float>(kPanel * kPanel, 3);
        const std::vector<float> step(lanes, 0.3f);
        auto weight = original;
        std::vector<float> residual(kPanel * lanes);
        std::vector<float> damped_error(lanes);
        std::vector<float> residual_square(lanes);
        kernels.quantize({weight.data(), original.data(), step.data(), feedback.data(), pivot.data(), 4.0f,
                          residual.data(), damped_error.data(), residual_square.data()});
        for (std::size_t lane = 0; lane < lanes; ++lane) {
            double e2 = 0;
            double d2 = 0;
            std::vector<double> d(kPanel);
            for (std::size_t j = 0; j < kPanel; ++j) {
                double w = original[j * lanes + lane];
                for (std::size_t i = 0; i < j; ++i) w += d[i] * feedback[i * kPanel + j];
                const double code = std::fmin(std::fmax(std::nearbyint(w / 0.3f), -4), 4);
                d[j] = original[j * lanes + lane] - code * 0.3f;
                e2 += std::pow((w - code * 0.3f) * pivot[j], 2);
                d2 += d[j] * d[j];
                ASSERT_EQ(weight[j * lanes + lane], code);
                EXPECT_NEAR(residual[j * lanes + lane], d[j], 1e-6);
            }
            EXPECT_NEAR(damped_error[lane], e2, 1e-5 * e2);
            EXPECT_NEAR(residual_square[lane], d2, 1e-5 * d2);
        }
    }
}

// A = X X^T + 0.1 with X of 8 columns, so that no pivot is below 0.1.
void fill(CholeskyMatrix& matrix, std::size_t order, double diagonal) {
    const auto x = random_values<double>(order * 8, 4);
    for (std::size_t i = 0; i < order; ++i) {
        for (std::size_t j = 0; j <= i; ++j) {
            matrix.at(i, j) = i == j ? diagonal : 0.0;
            for (std::size_t k = 0; k < 8; ++k) matrix.at(i, j) += x[i * 8 + k] * x[j * 8 + k];
        }
    }
}

TEST(Cholesky, FactorTimesItsTransposeIsTheMatrix) {
    for (const Kernels& kernels : supported_kernels()) {
        for (const std::size_t order : {1, 47, 96, 97, 250}) {
            SCOPED_TRACE(std::string(kernels.name) + " " + std::to_string(order));
            CholeskyMatrix matrix(order, kernels);
            CholeskyMatrix factor(order, kernels);
            fill(matrix, order, 0.1);
            fill(factor, order, 0.1);
            ASSERT_TRUE(factor.factor(0.09, 2));
            for (std::size_t i = 0; i < order; ++i) {
                for (std::size_t j = 0; j <= i; ++j) {
                    double product = 0;
                    for (std::size_t k = 0; k <= j; ++k) product += factor.at(i, k) * factor.at(j, k);
                    ASSERT_NEAR(product, matrix.at(i, j), 1e-12) << i << " " << j;
                }
            }
        }
    }
}

TEST(Cholesky, RefusesSmallPivotsAndNotANumber) {
    const Kernels& kernels = supported_kernels().back();
    CholeskyMatrix matrix(200, kernels);
    fill(matrix, 200, 0.1);
    EXPECT_FALSE(matrix.factor(0.11, 1));
    fill(matrix, 200, 0.1);
    matrix.at(150, 3) = std::nan("");
    EXPECT_FALSE(matrix.factor(0.05, 1));
}

}  // namespace
}  // namespace pygolf
