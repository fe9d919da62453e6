#include "gptq_feedback.hpp"

#include <algorithm>

#include "cholesky.hpp"
#include "pygolf/error.hpp"

namespace pygolf {
namespace {

class Hessian {
  public:
    Hessian(std::span<const float> values_CC, std::size_t columns) : values_(values_CC), columns_(columns) {}

    [[nodiscard]] double operator()(std::size_t i, std::size_t j) const { return values_[i * columns_ + j]; }
    [[nodiscard]] std::size_t columns() const { return columns_; }

  private:
    std::span<const float> values_;
    std::size_t columns_;
};

std::vector<std::size_t> live_columns_by_diagonal(const Hessian& hessian) {
    std::vector<std::size_t> order;
    for (std::size_t j = 0; j < hessian.columns(); ++j) {
        if (hessian(j, j) < 0) {
            fail<NumericError>("hessian[", j, ", ", j, "] is ", hessian(j, j),
                               ", expected 0 or more: a Hessian is the mean of x x^T; compute it again");
        }
        if (hessian(j, j) > 0) order.push_back(j);
    }
    std::ranges::stable_sort(order, [&](auto a, auto b) { return hessian(a, a) > hessian(b, b); });
    return order;
}

double mean_diagonal(const Hessian& hessian, const std::vector<std::size_t>& order) {
    double sum = 0;
    for (const std::size_t j : order) sum += hessian(j, j);
    return order.empty() ? 0 : sum / static_cast<double>(order.size());
}

// Lower Cholesky factors run forwards and R = upper factor of H = R R^T runs backwards, so the matrix is laid
// out in reverse coding order: R_ij = L[N-1-i][N-1-j].
void fill(CholeskyMatrix& matrix, const Hessian& hessian, const Feedback& feedback) {
    const std::size_t last = feedback.order_N.size() - 1;
    for (std::size_t i = 0; i <= last; ++i) {
        const std::size_t row = feedback.order_N[last - i];
        for (std::size_t j = 0; j < i; ++j)
            matrix.at(i, j) = hessian(row, feedback.order_N[last - j]) / feedback.unit;
        matrix.at(i, i) = hessian(row, row) / feedback.unit + feedback.damping;
    }
}

// With H positive semidefinite no pivot is below the damping, so half of it tells rounding from a wrong H.
CholeskyMatrix factor(const Hessian& hessian, Feedback& feedback, const Kernels& kernels, int threads) {
    while (true) {
        CholeskyMatrix matrix(feedback.order_N.size(), kernels);
        fill(matrix, hessian, feedback);
        if (matrix.factor(feedback.damping / 2, threads)) return matrix;
        if (feedback.damping >= 1) {
            fail<NumericError>("hessian is not positive definite even with ", feedback.damping,
                               " of its mean diagonal (", feedback.unit,
                               ") added, expected a mean of x x^T; compute it again from the layer's inputs");
        }
        feedback.damping = std::min(feedback.damping * 10, 1.0);
    }
}

void pack(Feedback& feedback, const CholeskyMatrix& matrix) {
    const std::size_t columns = feedback.order_N.size();
    feedback.panels = (columns + kPanel - 1) / kPanel;
    feedback.pivots.assign(feedback.panels * kPanel, 0.0f);
    feedback.coefficients.assign(feedback.panels * (feedback.panels + 1) / 2 * kPanel * kPanel, 0.0f);
    float* packed = feedback.coefficients.data();
    for (std::size_t panel = 0; panel < feedback.panels; ++panel) {
        const std::size_t begin = panel * kPanel;
        const std::size_t end = std::min(begin + kPanel, columns);
        for (std::size_t j = begin; j < end; ++j) {
            const std::size_t reverse = columns - 1 - j;
            const double pivot = matrix.at(reverse, reverse);
            feedback.pivots[j] = static_cast<float>(pivot);
            for (std::size_t i = 0; i < j; ++i) {
                packed[i * kPanel + j - begin] =
                    static_cast<float>(matrix.at(columns - 1 - i, reverse) / pivot);
            }
        }
        packed += (begin + kPanel) * kPanel;
    }
}

}  // namespace

Feedback make_feedback(std::span<const float> hessian_CC, std::size_t columns, double damping,
                       const Kernels& kernels, int threads) {
    const Hessian hessian(hessian_CC, columns);
    Feedback feedback;
    feedback.order_N = live_columns_by_diagonal(hessian);
    feedback.unit = mean_diagonal(hessian, feedback.order_N);
    feedback.damping = damping;
    if (!feedback.order_N.empty()) pack(feedback, factor(hessian, feedback, kernels, threads));
    return feedback;
}

}  // namespace pygolf
