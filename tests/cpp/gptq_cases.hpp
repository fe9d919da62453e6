// Problems for the GPTQ tests, and what the solver is compared with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "pygolf/float16.hpp"
#include "pygolf/gptq.hpp"

namespace pygolf::testing_gptq {

using Matrix = std::vector<std::vector<double>>;

// Inputs of one solve, owned. Clips are fractions of each row's largest weight.
struct Case {
    std::size_t rows;
    std::size_t columns;
    std::size_t candidates;
    std::vector<float> weight;
    std::vector<float> hessian;
    std::vector<float> clips;
    GptqOptions options{.threads = 1};

    Case(std::size_t rows_, std::size_t columns_, const std::vector<float>& fractions = {1.0f})
        : rows(rows_),
          columns(columns_),
          candidates(fractions.size()),
          weight(rows * columns),
          hessian(columns * columns) {
        std::normal_distribution<float> normal(0.0f, 0.02f);
        std::mt19937 random(static_cast<unsigned>(rows * 1000 + columns));
        for (float& value : weight) value = normal(random);
        for (const float fraction : fractions) {
            for (std::size_t r = 0; r < rows; ++r) {
                float most = 0;
                for (std::size_t c = 0; c < columns; ++c)
                    most = std::max(most, std::abs(weight[r * columns + c]));
                clips.push_back(fraction * most);
            }
        }
        for (std::size_t c = 0; c < columns; ++c) hessian[c * columns + c] = 1.0f;
    }

    // H = mean of x x^T over `samples` inputs with a strong common part and columns of different size.
    Case& correlate(std::size_t samples, unsigned seed = 1) {
        std::mt19937 random(seed);
        std::normal_distribution<double> normal;
        std::vector<double> size(columns);
        std::vector<double> sum(columns * columns);
        std::vector<double> x(columns);
        for (double& value : size) value = std::exp(normal(random));
        for (std::size_t sample = 0; sample < samples; ++sample) {
            const double common = normal(random);
            for (std::size_t c = 0; c < columns; ++c) x[c] = size[c] * (common + normal(random));
            for (std::size_t i = 0; i < columns; ++i) {
                for (std::size_t j = 0; j < columns; ++j) sum[i * columns + j] += x[i] * x[j];
            }
        }
        for (std::size_t i = 0; i < sum.size(); ++i)
            hessian[i] = static_cast<float>(sum[i] / static_cast<double>(samples));
        return *this;
    }

    Case& kill_column(std::size_t dead) {
        for (std::size_t c = 0; c < columns; ++c)
            hessian[dead * columns + c] = hessian[c * columns + dead] = 0.0f;
        return *this;
    }

    Case& scale_hessian(float factor) {
        for (float& value : hessian) value *= factor;
        return *this;
    }

    [[nodiscard]] GptqResult solve() const {
        return gptq_solve({rows, columns, candidates, weight, hessian, clips}, options);
    }

    // d H d^T of row r in double, for the values that `codes` stand for.
    [[nodiscard]] double error(std::size_t r, const std::vector<std::int8_t>& codes, float step) const {
        std::vector<double> d(columns);
        for (std::size_t c = 0; c < columns; ++c)
            d[c] = weight[r * columns + c] - double{step} * codes[r * columns + c];
        double sum = 0;
        for (std::size_t i = 0; i < columns; ++i) {
            for (std::size_t j = 0; j < columns; ++j) sum += d[i] * hessian[i * columns + j] * d[j];
        }
        return sum;
    }
};

inline double round_half_even(double value) { return std::nearbyint(value); }

inline float step_of(const Case& c, std::size_t candidate, std::size_t row) {
    return from_float16(
        to_float16(c.clips[candidate * c.rows + row] / static_cast<float>(c.options.max_code)));
}

inline std::vector<std::int8_t> plain_rounding(const Case& c) {
    std::vector<std::int8_t> codes(c.weight.size());
    for (std::size_t i = 0; i < codes.size(); ++i) {
        const double code = round_half_even(c.weight[i] / step_of(c, 0, i / c.columns));
        codes[i] =
            static_cast<std::int8_t>(std::clamp<double>(code, -c.options.max_code, c.options.max_code));
    }
    return codes;
}

inline Matrix inverse(Matrix a) {  // Gauss-Jordan; a is positive definite
    const std::size_t n = a.size();
    Matrix b(n, std::vector<double>(n));
    for (std::size_t i = 0; i < n; ++i) b[i][i] = 1;
    for (std::size_t p = 0; p < n; ++p) {
        const double pivot = a[p][p];
        for (std::size_t j = 0; j < n; ++j) a[p][j] /= pivot, b[p][j] /= pivot;
        for (std::size_t i = 0; i < n; ++i) {
            const double factor = a[i][p];
            if (i == p) continue;
            for (std::size_t j = 0; j < n; ++j) a[i][j] -= factor * a[p][j], b[i][j] -= factor * b[p][j];
        }
    }
    return b;
}

inline Matrix upper_cholesky(const Matrix& a) {  // a = U^T U
    const std::size_t n = a.size();
    Matrix u(n, std::vector<double>(n));
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = i; j < n; ++j) {
            double value = a[i][j];
            for (std::size_t k = 0; k < i; ++k) value -= u[k][i] * u[k][j];
            u[i][j] = i == j ? std::sqrt(value) : value / u[i][i];
        }
    }
    return u;
}

struct Textbook {
    std::vector<std::int8_t> codes;
    std::vector<double> margin;  // of each row: least distance of any w / s from a rounding boundary
};

// The paper's double loop in float64, with U from an explicit inverse: no part is shared with the solver.
inline Textbook textbook(const Case& c, std::size_t candidate) {
    std::vector<std::size_t> order;
    double mean = 0;
    const auto diagonal = [&](std::size_t j) { return c.hessian[j * c.columns + j]; };
    for (std::size_t j = 0; j < c.columns; ++j) {
        if (diagonal(j) != 0) order.push_back(j), mean += diagonal(j);
    }
    mean /= static_cast<double>(order.size());
    std::ranges::stable_sort(order, [&](auto a, auto b) { return diagonal(a) > diagonal(b); });
    Matrix h(order.size(), std::vector<double>(order.size()));
    for (std::size_t i = 0; i < order.size(); ++i) {
        for (std::size_t j = 0; j < order.size(); ++j) h[i][j] = c.hessian[order[i] * c.columns + order[j]];
        h[i][i] += c.options.damping * mean;
    }
    const Matrix u = upper_cholesky(inverse(h));

    Textbook result{std::vector<std::int8_t>(c.weight.size()), std::vector<double>(c.rows, 1.0)};
    for (std::size_t r = 0; r < c.rows; ++r) {
        const double s = step_of(c, candidate, r);
        std::vector<double> w;
        for (const std::size_t j : order) w.push_back(c.weight[r * c.columns + j]);
        for (std::size_t j = 0; j < w.size(); ++j) {
            const double q =
                std::clamp<double>(round_half_even(w[j] / s), -c.options.max_code, c.options.max_code);
            if (std::abs(w[j] / s) < c.options.max_code) {
                result.margin[r] =
                    std::min(result.margin[r], 0.5 - std::abs(w[j] / s - round_half_even(w[j] / s)));
            }
            const double e = (w[j] - q * s) / u[j][j];
            for (std::size_t k = j; k < w.size(); ++k) w[k] -= e * u[j][k];
            result.codes[r * c.columns + order[j]] = static_cast<std::int8_t>(q);
        }
    }
    return result;
}

}  // namespace pygolf::testing_gptq
