#include "entropy_lines.hpp"

#include <utility>
#include <vector>

namespace pygolf::entropy {
namespace {

constexpr std::uint64_t kStreamOverhead = 12 * 8 << kCostBits;  // of the stream that holds residuals

void keep_cheaper(Choice& best, Choice other) {
    if (other.cost < best.cost) best = std::move(other);
}

// Chooses for a given slope.
class LineChooser {
  public:
    LineChooser(std::span<const Window> windows, Factors factors, int slope)
        : windows_(windows), slope_(slope), predicted_(windows.size()) {
        for (std::size_t i = 0; i < windows.size(); ++i) predicted_[i] = predicted_class(factors, slope, i);
    }

    [[nodiscard]] Choice choose() const {
        std::vector<int> offsets(windows_.size());
        for (std::size_t i = 0; i < offsets.size(); ++i) offsets[i] = windows_[i].best() - predicted_[i];
        const auto middle = offsets.begin() + static_cast<std::ptrdiff_t>(offsets.size() / 2);
        std::ranges::nth_element(offsets, middle);
        const int base = *middle;
        std::uint64_t deviation = 0;
        for (const int offset : offsets) deviation += magnitude(offset - base);

        Choice best;
        for (int shift = -2; shift <= 2; ++shift) keep_cheaper(best, without_residuals(base + shift));
        // Residuals that pay for themselves are fewer and smaller than the best classes suggest.
        const int widest = std::min(class_of_mean(deviation, offsets.size()), kTables - 1);
        for (int spread = widest; spread >= 0 && spread > widest - 16; spread -= 4)
            keep_cheaper(best, with_residuals(base, spread));
        return best;
    }

  private:
    [[nodiscard]] Choice without_residuals(int base) const {
        Choice choice{{slope_, kNoResiduals, {}}, base, 0};
        for (std::size_t i = 0; i < windows_.size(); ++i)
            choice.cost += windows_[i].cost(base + predicted_[i]);
        return choice;
    }

    // Each line takes the class for which the bits of its codes and of its residual are fewest.
    [[nodiscard]] Choice with_residuals(int base, int residual_class) const {
        Choice choice{{slope_, residual_class, {}}, base, kStreamOverhead};
        choice.lines.residuals.resize(windows_.size());
        for (std::size_t i = 0; i < windows_.size(); ++i) {
            const int first = windows_[i].first - predicted_[i] - base;
            std::uint64_t least = std::numeric_limits<std::uint64_t>::max();
            for (int k = 0; k < kWindow; ++k) {
                const std::uint64_t cost = windows_[i].costs[static_cast<std::size_t>(k)] +
                                           *cost_table().window(distance(first + k, 0), residual_class);
                if (cost >= least) continue;
                least = cost;
                choice.lines.residuals[i] = first + k;
            }
            choice.cost += least;
        }
        return choice;
    }

    std::span<const Window> windows_;
    int slope_;
    std::vector<int> predicted_;
};

// Least squares of the best classes on the factors of the first kSamples lines, times 2^kSlopeBits.
int fitted_slope(std::span<const Window> windows, Factors factors) {
    const auto count = static_cast<std::int64_t>(std::min(windows.size(), kSamples));
    const auto first = windows.first(static_cast<std::size_t>(count));
    std::int64_t factor_sum = 0;
    std::int64_t class_sum = 0;
    for (std::size_t i = 0; i < first.size(); ++i) {
        factor_sum += factors[i];
        class_sum += first[i].best();
    }
    std::int64_t covariance = 0;
    std::int64_t variance = 0;
    for (std::size_t i = 0; i < first.size(); ++i) {
        const std::int64_t deviation = factors[i] - factor_sum / count;
        covariance += deviation * (first[i].best() - class_sum / count);
        variance += deviation * deviation;
    }
    if (variance == 0) return 0;
    return static_cast<int>(std::clamp<std::int64_t>((covariance << kSlopeBits) / variance, -128, 127));
}

}  // namespace

Choice choose_lines(std::span<const Window> windows, Factors factors) {
    Choice best = LineChooser(windows, factors, 0).choose();
    if (!factors.empty()) {
        const int slope = fitted_slope(windows, factors);
        if (slope != 0) keep_cheaper(best, LineChooser(windows, factors, slope).choose());
    }
    return best;
}

}  // namespace pygolf::entropy
