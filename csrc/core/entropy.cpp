#include "pygolf/entropy.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "byte_cursor.hpp"
#include "entropy_container.hpp"
#include "entropy_model.hpp"
#include "entropy_stream.hpp"
#include "parallel.hpp"
#include "pygolf/error.hpp"
#include "pygolf/trellis.hpp"

namespace pygolf {
namespace {

using entropy::Range;
using Bytes = std::vector<std::uint8_t>;
using Factors = std::span<const std::int16_t>;

void check_shape(std::size_t codes, std::size_t rows, std::size_t cols, const SideInformation& side) {
    const bool fits = cols == 0 ? codes == 0 : codes % cols == 0 && codes / cols == rows;
    if (!fits) fail<ArgumentError>(codes, " codes, expected rows * cols = ", rows, " * ", cols);
    const auto check = [](const char* name, Factors line_factors, std::size_t lines) {
        if (!line_factors.empty() && line_factors.size() != lines)
            fail<ArgumentError>(line_factors.size(), " ", name, " factors, expected none or ", lines);
    };
    check("row", side.rows, rows);
    check("column", side.cols, cols);
    if (!is_trellis_states(side.states))
        fail<ArgumentError>("trellis has ", side.states, " states, expected 1 (none), 4 or 8");
}

// Spread classes of the codes of a tensor.
class ClassMap {
  public:
    ClassMap(const entropy::Spreads& spreads, std::size_t rows, std::size_t cols, const SideInformation& side)
        : base_(spreads.base),
          cols_(cols),
          row_classes_(entropy::line_classes(spreads.rows, side.rows, rows)),
          col_classes_(entropy::line_classes(spreads.cols, side.cols, cols)) {}

    // Of the codes from `begin` on, in row-major order.
    void fill(std::size_t begin, std::span<std::uint8_t> classes) const {
        while (!classes.empty()) {
            const std::size_t col = begin % cols_;
            const std::size_t count = std::min(classes.size(), cols_ - col);
            fill_row(begin / cols_, col, classes.first(count));
            begin += count;
            classes = classes.subspan(count);
        }
    }

  private:
    void fill_row(std::size_t row, std::size_t col, std::span<std::uint8_t> classes) const {
        const int row_class = base_ + (row_classes_.empty() ? 0 : row_classes_[row]);
        const auto clamped = [](int k) {
            return static_cast<std::uint8_t>(std::clamp(k, 0, entropy::kClasses - 1));
        };
        if (col_classes_.empty()) {
            std::ranges::fill(classes, clamped(row_class));
            return;
        }
        for (std::size_t i = 0; i < classes.size(); ++i)
            classes[i] = clamped(row_class + col_classes_[col + i]);
    }

    int base_;
    std::size_t cols_;
    std::vector<std::int16_t> row_classes_;  // empty: all zero
    std::vector<std::int16_t> col_classes_;
};

// What all streams of a tensor share.
struct Coding {
    Coding(entropy::Header chosen, std::size_t rows, std::size_t cols, const SideInformation& side)
        : header(std::move(chosen)),
          map(header.spreads, rows, cols, side),
          cut(rows, cols, header.stream_bits, side.states),
          inside_C(entropy::trellis_columns(side, cols)),
          states(side.states) {}

    [[nodiscard]] entropy::StreamModel model() const {
        return {entropy::learning_shift(header.learning), states, inside_C, header.spreads.centre};
    }

    entropy::Header header;
    ClassMap map;
    entropy::StreamCut cut;
    std::vector<std::uint8_t> inside_C;
    int states;
};

template <typename Code>
Bytes encode_range(std::span<const Code> codes, Range range, const Coding& coding) {
    const std::int64_t centre = coding.header.spreads.centre;
    const auto classes = [&](std::size_t begin, std::span<std::uint8_t> out) {
        coding.map.fill(range.begin + begin, out);
    };
    const auto read = [&](std::size_t begin, std::span<std::int32_t> out) {
        const auto run = codes.subspan(range.begin + begin, out.size());
        std::ranges::transform(run, out.begin(),
                               [&](Code code) { return static_cast<std::int32_t>(code - centre); });
    };
    return entropy::encode_stream(range.size(), coding.model(), classes, read);
}

template <typename Code>
void decode_range(std::span<const std::uint8_t> bytes, Range range, const Coding& coding,
                  std::span<Code> out) {
    const std::int64_t centre = coding.header.spreads.centre;
    const auto classes = [&](std::size_t begin, std::span<std::uint8_t> k) {
        coding.map.fill(range.begin + begin, k);
    };
    const auto write = [&](std::size_t begin, std::span<const std::int32_t> run) {
        const auto [low, high] = std::ranges::minmax(run);
        using Limits = std::numeric_limits<Code>;
        if (low + centre < Limits::min() || high + centre > Limits::max()) {
            fail<FormatError>("[E5] entropy-coded codes: codes of ", low + centre, " to ", high + centre,
                              ", expected ", int{Limits::min()}, " to ", int{Limits::max()}, kDamaged);
        }
        std::ranges::transform(run, &out[range.begin + begin],
                               [&](std::int32_t code) { return static_cast<Code>(code + centre); });
    };
    entropy::decode_stream(bytes, range.size(), coding.model(), classes, write);
}

// Chooses the learning rate by trying the rates on the first stream, slow ones first: that is what
// well-behaved codes want, and the size has one minimum over the rates.
template <typename Code>
Bytes encode_first(std::span<const Code> codes, Coding& coding) {
    const Range range = coding.cut.range(0);
    Bytes best = encode_range(codes, range, coding);
    for (Coding faster = coding; ++faster.header.learning < entropy::kLearningRates;) {
        Bytes bytes = encode_range(codes, range, faster);
        if (bytes.size() >= best.size()) break;
        best = std::move(bytes);
        coding.header.learning = faster.header.learning;
    }
    return best;
}

template <typename Code>
Bytes encode(std::span<const Code> codes, std::size_t rows, std::size_t cols, const EntropyOptions& options,
             const SideInformation& side) {
    check_shape(codes.size(), rows, cols, side);
    if (options.stream_bits < kMinStreamBits || options.stream_bits > kMaxStreamBits) {
        fail<ArgumentError>("stream_bits is ", options.stream_bits, ", expected ", kMinStreamBits, " to ",
                            kMaxStreamBits);
    }
    if (codes.empty()) return {};
    Coding coding({options.stream_bits, 0, entropy::choose_spreads(codes, rows, cols, side)}, rows, cols,
                  side);
    std::vector<Bytes> streams(coding.cut.count());
    streams[0] = encode_first(codes, coding);
    parallel_for(streams.size() - 1, options.threads, [&](std::size_t i) {
        streams[i + 1] = encode_range(codes, coding.cut.range(i + 1), coding);
    });
    return entropy::assemble(coding.header, streams);
}

void check_factors(const entropy::Spreads& spreads, const SideInformation& side) {
    const bool missing =
        (spreads.rows.slope != 0 && side.rows.empty()) || (spreads.cols.slope != 0 && side.cols.empty());
    if (missing) {
        fail<FormatError>("[E1] entropy-coded codes: made with factors of rows or columns that are not given",
                          kDamaged);
    }
}

template <typename Code>
void decode(std::span<const std::uint8_t> bytes, std::size_t rows, std::size_t cols, std::span<Code> out,
            const SideInformation& side, int threads) {
    check_shape(out.size(), rows, cols, side);
    if (out.size() / kMaxCodesPerByte > bytes.size() || (out.empty() && !bytes.empty())) {
        fail<FormatError>("[E6] entropy-coded codes: ", bytes.size(), " bytes cannot be ", out.size(),
                          " codes", kDamaged);
    }
    if (out.empty()) return;
    auto [header, streams] = entropy::parse(bytes, rows, cols, side.states);
    check_factors(header.spreads, side);
    const Coding coding(std::move(header), rows, cols, side);
    parallel_for(streams.size(), threads,
                 [&](std::size_t i) { decode_range(streams[i], coding.cut.range(i), coding, out); });
}

}  // namespace

Bytes encode_codes(std::span<const std::int8_t> codes_RC, std::size_t rows, std::size_t cols,
                   const EntropyOptions& options, const SideInformation& side) {
    return encode(codes_RC, rows, cols, options, side);
}

Bytes encode_codes(std::span<const std::int16_t> codes_RC, std::size_t rows, std::size_t cols,
                   const EntropyOptions& options, const SideInformation& side) {
    return encode(codes_RC, rows, cols, options, side);
}

Bytes encode_codes(std::span<const std::int32_t> codes_RC, std::size_t rows, std::size_t cols,
                   const EntropyOptions& options, const SideInformation& side) {
    return encode(codes_RC, rows, cols, options, side);
}

void decode_codes(std::span<const std::uint8_t> bytes, std::size_t rows, std::size_t cols,
                  std::span<std::int8_t> out_RC, const SideInformation& side, int threads) {
    decode(bytes, rows, cols, out_RC, side, threads);
}

void decode_codes(std::span<const std::uint8_t> bytes, std::size_t rows, std::size_t cols,
                  std::span<std::int16_t> out_RC, const SideInformation& side, int threads) {
    decode(bytes, rows, cols, out_RC, side, threads);
}

void decode_codes(std::span<const std::uint8_t> bytes, std::size_t rows, std::size_t cols,
                  std::span<std::int32_t> out_RC, const SideInformation& side, int threads) {
    decode(bytes, rows, cols, out_RC, side, threads);
}

}  // namespace pygolf
