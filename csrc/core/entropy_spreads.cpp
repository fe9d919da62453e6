#include "entropy_spreads.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "entropy_cost.hpp"
#include "entropy_lines.hpp"
#include "pygolf/trellis.hpp"

namespace pygolf::entropy {
namespace {

enum class Axis { kRows, kCols };  // which lines

// What the fit sees of the codes.
template <typename Code>
struct Tensor {
    std::span<const Code> codes_RC;
    std::size_t rows;
    std::size_t cols;
    std::int32_t centre;
    std::span<const std::uint8_t> quantizers_RC;  // empty: all 0

    // Calls f(line, position in the line, distance) for every code, or for evenly spaced ones of long lines.
    template <Axis axis, typename F>
    void for_each(const F& f) const {
        constexpr bool by_rows = axis == Axis::kRows;
        const std::size_t step = (by_rows ? cols : rows) / kSamples + 1;
        for (std::size_t row = 0; row < rows; row += by_rows ? 1 : step) {
            for (std::size_t col = 0; col < cols; col += by_rows ? step : 1) {
                const std::size_t i = row * cols + col;
                const std::uint32_t quantizer = quantizers_RC.empty() ? 0 : quantizers_RC[i];
                const std::uint64_t halves = distance(std::int64_t{codes_RC[i]} - centre, quantizer);
                by_rows ? f(row, col, halves) : f(col, row, halves);
            }
        }
    }

    // The class of each line's mean distance.
    template <Axis axis>
    [[nodiscard]] Classes guess() const {
        std::vector<std::uint64_t> sums(axis == Axis::kRows ? rows : cols);
        for_each<axis>([&](std::size_t line, std::size_t, std::uint64_t halves) { sums[line] += halves; });
        const std::size_t length = axis == Axis::kRows ? cols : rows;
        const std::size_t samples = (length - 1) / (length / kSamples + 1) + 1;
        Classes classes(sums.size());
        std::ranges::transform(sums, classes.begin(), [&](std::uint64_t sum) {
            return static_cast<std::int16_t>(class_of_mean(sum, 2 * samples));
        });
        return classes;
    }

    // Costs of the lines in classes around `guess` when the lines across have the classes `across` + offset.
    template <Axis axis>
    [[nodiscard]] std::vector<Window> measure(const Classes& guess, const Classes& across, int offset) const {
        std::vector<Window> windows(guess.size());
        for (std::size_t i = 0; i < guess.size(); ++i) windows[i].first = guess[i] - kWindow / 2;
        const CostTable& table = cost_table();
        for_each<axis>([&](std::size_t line, std::size_t position, std::uint64_t halves) {
            Window& window = windows[line];
            const int other = offset + (across.empty() ? 0 : across[position]);
            const std::uint16_t* costs = table.window(halves, window.first + other);
            for (std::size_t k = 0; k < kWindow; ++k) window.costs[k] += costs[k];
        });
        return windows;
    }
};

// The mean, to nearest; 0 if the distance of a code from it would take more than 32 bits.
template <typename Code>
std::int32_t centre_of(std::span<const Code> codes) {
    std::int64_t sum = 0;
    for (const std::int64_t code : codes) sum += code;
    const auto count = static_cast<std::int64_t>(codes.size());
    const std::int64_t remainder = sum % count;
    const int away = remainder * 2 >= count ? 1 : remainder * 2 <= -count ? -1 : 0;
    const std::int64_t mean = sum / count + away;
    const auto [low, high] = std::ranges::minmax(codes);
    using Limits = std::numeric_limits<std::int32_t>;
    return low - mean < Limits::min() || high - mean > Limits::max() ? 0 : static_cast<std::int32_t>(mean);
}

// The quantizer of each code; nothing without a trellis.
template <typename Code>
std::vector<std::uint8_t> quantizers(std::span<const Code> codes_RC, std::size_t cols,
                                     const SideInformation& side) {
    if (side.states == 1) return {};
    const auto inside_C = trellis_columns(side, cols);
    std::vector<std::uint8_t> found(codes_RC.size());
    TrellisWalk walk(side.states);
    for (std::size_t i = 0, col = 0; i < codes_RC.size(); ++i, ++col) {
        if (col == cols) {
            walk.restart();
            col = 0;
        }
        found[i] = static_cast<std::uint8_t>(walk.quantizer(inside_C[col]));
        walk.advance(codes_RC[i], inside_C[col]);
    }
    return found;
}

void add(Classes& classes, int offset) {
    for (std::int16_t& k : classes) k = static_cast<std::int16_t>(k + offset);
}

// Fits columns, rows and columns again, each while the others' classes are fixed.
template <typename Code>
class SpreadFit {
  public:
    SpreadFit(std::span<const Code> codes_RC, std::size_t rows, std::size_t cols, const SideInformation& side)
        : side_(side),
          quantizers_(quantizers(codes_RC, cols, side)),
          tensor_{codes_RC, rows, cols, centre_of(codes_RC), quantizers_},
          overall_{codes_RC, codes_RC.size(), 1, tensor_.centre, quantizers_} {}

    Spreads choose() {
        spreads_.centre = tensor_.centre;
        const bool rows_vary = tensor_.cols >= kMinLine;
        const bool cols_vary = tensor_.rows >= kMinLine;
        const Classes common = overall_.template guess<Axis::kCols>();
        if (rows_vary) {
            row_classes_ = tensor_.template guess<Axis::kRows>();
            add(row_classes_, -common[0]);
        }
        if (cols_vary)
            fit_cols(tensor_.template guess<Axis::kCols>());
        else
            spreads_.base = overall_.template measure<Axis::kCols>(common, {}, 0)[0].best();
        if (rows_vary) fit_rows();
        if (rows_vary && cols_vary) {
            Classes guess = line_classes(spreads_.cols, side_.cols, tensor_.cols);
            guess.resize(tensor_.cols);
            add(guess, spreads_.base);
            fit_cols(guess);
        }
        spreads_.base += row_base_;
        return std::move(spreads_);
    }

  private:
    void fit_cols(const Classes& guess) {
        Choice choice =
            choose_lines(tensor_.template measure<Axis::kCols>(guess, row_classes_, row_base_), side_.cols);
        spreads_.base = choice.base;
        spreads_.cols = std::move(choice.lines);
    }

    void fit_rows() {
        const Classes col_classes = line_classes(spreads_.cols, side_.cols, tensor_.cols);
        Choice choice = choose_lines(
            tensor_.template measure<Axis::kRows>(row_classes_, col_classes, spreads_.base), side_.rows);
        row_base_ = choice.base;
        spreads_.rows = std::move(choice.lines);
        row_classes_ = line_classes(spreads_.rows, side_.rows, tensor_.rows);
    }

    SideInformation side_;
    std::vector<std::uint8_t> quantizers_;
    Tensor<Code> tensor_;
    Tensor<Code> overall_;  // all codes as one column
    Spreads spreads_;       // base: without row_base_
    Classes row_classes_;   // without row_base_; until fit_rows() a guess
    int row_base_ = 0;
};

}  // namespace

Classes line_classes(const Lines& lines, Factors factors, std::size_t count) {
    if (!lines.vary()) return {};
    Classes classes(count);
    for (std::size_t i = 0; i < count; ++i) {
        const std::int64_t residual = lines.residuals.empty() ? 0 : lines.residuals[i];
        const std::int64_t line_class = predicted_class(factors, lines.slope, i) + residual;
        classes[i] = static_cast<std::int16_t>(std::clamp<std::int64_t>(line_class, -4096, 4095));
    }
    return classes;
}

std::vector<std::uint8_t> trellis_columns(const SideInformation& side, std::size_t cols) {
    if (side.states == 1) return {};
    std::vector<std::uint8_t> inside_C(cols, 1);
    for (std::size_t col = 0; col < side.cols.size(); ++col) inside_C[col] = in_trellis(side.cols[col]);
    return inside_C;
}

template <typename Code>
Spreads choose_spreads(std::span<const Code> codes_RC, std::size_t rows, std::size_t cols,
                       const SideInformation& side) {
    return SpreadFit(codes_RC, rows, cols, side).choose();
}

template Spreads choose_spreads(std::span<const std::int8_t>, std::size_t, std::size_t,
                                const SideInformation&);
template Spreads choose_spreads(std::span<const std::int16_t>, std::size_t, std::size_t,
                                const SideInformation&);
template Spreads choose_spreads(std::span<const std::int32_t>, std::size_t, std::size_t,
                                const SideInformation&);

}  // namespace pygolf::entropy
