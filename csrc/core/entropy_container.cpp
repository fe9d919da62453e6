#include "entropy_container.hpp"

#include <algorithm>

#include "byte_cursor.hpp"
#include "entropy_stream.hpp"
#include "pygolf/error.hpp"

namespace pygolf::entropy {
namespace {

using Bytes = std::vector<std::uint8_t>;
using View = std::span<const std::uint8_t>;

// The first byte: stream_bits - kMinStreamBits in bits 0-3, learning in bits 4-5, and whether rows and
// columns are described.
constexpr int kLearningBit = 4;
constexpr int kRowsFlag = 1 << 6;
constexpr int kColsFlag = 1 << 7;

constexpr int kResidualShift = learning_shift(kLearningRates - 1);  // residuals are few: learn fast

// --- writing ---

void put(Bytes& bytes, int value) { bytes.push_back(static_cast<std::uint8_t>(value)); }

// Below 2^32, seven bits a byte, lowest first; all bytes but the last have the top bit set.
void put_number(Bytes& bytes, std::size_t number) {
    for (; number >= 0x80; number >>= 7) bytes.push_back(static_cast<std::uint8_t>(number | 0x80));
    bytes.push_back(static_cast<std::uint8_t>(number));
}

// 0, -1, 1, -2, 2... as 0, 1, 2, 3, 4...
std::uint32_t zigzag(std::int32_t value) {
    return static_cast<std::uint32_t>(value) << 1 ^ static_cast<std::uint32_t>(value >> 31);
}

std::int32_t unzigzag(std::uint32_t number) { return static_cast<std::int32_t>(number >> 1 ^ -(number & 1)); }

// --- the residuals of rows, then columns, as one stream ---

class ResidualClasses {
  public:
    ResidualClasses(const Spreads& spreads, std::size_t row_residuals)
        : row_class_(spreads.rows.residual_class),
          col_class_(spreads.cols.residual_class),
          rows_(row_residuals) {}

    void operator()(std::size_t begin, std::span<std::uint8_t> classes) const {
        for (std::size_t i = 0; i < classes.size(); ++i)
            classes[i] = static_cast<std::uint8_t>(begin + i < rows_ ? row_class_ : col_class_);
    }

  private:
    int row_class_;
    int col_class_;
    std::size_t rows_;
};

Bytes encode_residuals(const Spreads& spreads) {
    const auto& [centre, base, rows, cols] = spreads;
    std::vector<std::int32_t> all = rows.residuals;
    all.insert(all.end(), cols.residuals.begin(), cols.residuals.end());
    if (all.empty()) return {};
    const auto read = [&](std::size_t begin, std::span<std::int32_t> out) {
        std::ranges::copy(std::span(all).subspan(begin, out.size()), out.begin());
    };
    return encode_stream(all.size(), {.learning_shift = kResidualShift},
                         ResidualClasses(spreads, rows.residuals.size()), read);
}

void decode_residuals(View bytes, Spreads& spreads) {
    auto& rows = spreads.rows.residuals;
    auto& cols = spreads.cols.residuals;
    const auto write = [&](std::size_t begin, std::span<const std::int32_t> residuals) {
        for (std::size_t i = 0; i < residuals.size(); ++i) {
            const std::size_t at = begin + i;
            (at < rows.size() ? rows[at] : cols[at - rows.size()]) = residuals[i];
        }
    };
    decode_stream(bytes, rows.size() + cols.size(), {.learning_shift = kResidualShift},
                  ResidualClasses(spreads, rows.size()), write);
}

// --- reading ---

class Reader {
  public:
    explicit Reader(View bytes) : left_(bytes) {}

    [[nodiscard]] View left() const { return left_; }

    int take() {
        if (left_.empty())
            fail<FormatError>("[E1] entropy-coded codes: the bytes end inside the header", kDamaged);
        const int value = left_.front();
        left_ = left_.subspan(1);
        return value;
    }

    int take_signed() { return static_cast<std::int8_t>(take()); }

    std::uint32_t take_number() {
        std::uint64_t number = 0;
        for (int shift = 0; shift < 35; shift += 7) {
            const int byte = take();
            number |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
            if (byte < 0x80 && number >> 32 == 0) return static_cast<std::uint32_t>(number);
        }
        fail<FormatError>("[E1] entropy-coded codes: a number in the header has more than 32 bits", kDamaged);
    }

    View take_bytes(std::size_t count) {
        if (count > left_.size()) {
            fail<FormatError>("[E2] entropy-coded codes: a stream has ", count, " bytes, but ", left_.size(),
                              " are left", kDamaged);
        }
        const View taken = left_.first(count);
        left_ = left_.subspan(count);
        return taken;
    }

  private:
    View left_;
};

// `count` lines of `length` codes.
Lines take_lines(Reader& reader, std::size_t count, std::size_t length) {
    Lines lines;
    lines.residual_class = reader.take();
    lines.slope = reader.take_signed();
    if (length < kMinLine || lines.residual_class > kNoResiduals) {
        fail<FormatError>("[E1] entropy-coded codes: lines of ", length, " codes have residuals of class ",
                          lines.residual_class, ", expected at least ", kMinLine, " codes and at most ",
                          kNoResiduals, kDamaged);
    }
    if (lines.residual_class < kNoResiduals) lines.residuals.resize(count);
    return lines;
}

// Everything before the residuals but the lengths.
Header take_fields(Reader& reader, std::size_t rows, std::size_t cols) {
    Header header;
    const int flags = reader.take();
    header.stream_bits = (flags & 15) + kMinStreamBits;
    header.learning = flags >> kLearningBit & (kLearningRates - 1);
    if (header.stream_bits > kMaxStreamBits) {
        fail<FormatError>("[E1] entropy-coded codes: streams of 2^", header.stream_bits,
                          " codes, expected at most 2^", kMaxStreamBits, kDamaged);
    }
    header.spreads.centre = unzigzag(reader.take_number());
    const int low = reader.take();
    header.spreads.base = reader.take_signed() * 256 + low;
    if (flags & kRowsFlag) header.spreads.rows = take_lines(reader, rows, cols);
    if (flags & kColsFlag) header.spreads.cols = take_lines(reader, cols, rows);
    return header;
}

}  // namespace

StreamCut::StreamCut(std::size_t rows, std::size_t cols, int stream_bits, int states)
    : unit_(states == 1 ? 1 : cols),
      units_(rows * cols / unit_),
      count_(std::min(((rows * cols - 1) >> stream_bits) + 1, units_)) {}

Range StreamCut::range(std::size_t stream) const {
    const auto begin = [&](std::size_t i) {
        return (units_ / count_ * i + std::min(i, units_ % count_)) * unit_;
    };
    return {begin(stream), begin(stream + 1)};
}

Bytes assemble(const Header& header, std::span<const Bytes> streams) {
    const auto& [centre, base, rows, cols] = header.spreads;
    Bytes bytes;
    put(bytes, (header.stream_bits - kMinStreamBits) | header.learning << kLearningBit |
                   (rows.vary() ? kRowsFlag : 0) | (cols.vary() ? kColsFlag : 0));
    put_number(bytes, zigzag(centre));
    put(bytes, base);
    put(bytes, base >> 8);
    for (const Lines* lines : {&rows, &cols}) {
        if (!lines->vary()) continue;
        put(bytes, lines->residual_class);
        put(bytes, lines->slope);
    }
    const Bytes residuals = encode_residuals(header.spreads);
    if (!residuals.empty()) put_number(bytes, residuals.size());
    for (const Bytes& stream : streams.first(streams.size() - 1)) put_number(bytes, stream.size());
    bytes.insert(bytes.end(), residuals.begin(), residuals.end());
    for (const Bytes& stream : streams) bytes.insert(bytes.end(), stream.begin(), stream.end());
    return bytes;
}

Parsed parse(View bytes, std::size_t rows, std::size_t cols, int states) {
    Reader reader(bytes);
    Parsed parsed{take_fields(reader, rows, cols), {}};
    auto& spreads = parsed.header.spreads;
    const bool residuals = !spreads.rows.residuals.empty() || !spreads.cols.residuals.empty();
    const std::size_t residual_bytes = residuals ? reader.take_number() : 0;
    const StreamCut cut(rows, cols, parsed.header.stream_bits, states);
    std::vector<std::size_t> lengths(cut.count() - 1);
    for (std::size_t& length : lengths) length = reader.take_number();
    if (residuals) decode_residuals(reader.take_bytes(residual_bytes), spreads);
    for (const std::size_t length : lengths) parsed.streams.push_back(reader.take_bytes(length));
    parsed.streams.push_back(reader.left());
    return parsed;
}

}  // namespace pygolf::entropy
