// How header, residuals and streams of entropy-coded codes lie in the bytes. csrc/FORMAT.md, "Entropy-coded
// codes", is the specification.
//
//     flags, base class, descriptions of rows and columns, lengths | residuals | stream | stream | ...
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "entropy_spreads.hpp"

namespace pygolf::entropy {

// The codes [begin, end) of a tensor in row-major order.
struct Range {
    std::size_t begin;
    std::size_t end;

    [[nodiscard]] std::size_t size() const { return end - begin; }
};

// Codes are cut into the fewest streams of at most 1 << stream_bits, those of a trellis between rows into as
// many if there are as many rows; where that does not divide, the first streams are one code or row longer.
class StreamCut {
  public:
    // rows * cols >= 1.
    StreamCut(std::size_t rows, std::size_t cols, int stream_bits, int states);

    [[nodiscard]] std::size_t count() const { return count_; }
    [[nodiscard]] Range range(std::size_t stream) const;

  private:
    std::size_t unit_;  // codes that stay together
    std::size_t units_;
    std::size_t count_;
};

// How fast tables learn is a choice of the encoder, 0 to 3.
inline constexpr int kLearningRates = 4;
[[nodiscard]] constexpr int learning_shift(int learning) { return 2 + 2 * learning; }

struct Header {
    int stream_bits = 0;
    int learning = 0;
    Spreads spreads;
};

[[nodiscard]] std::vector<std::uint8_t> assemble(const Header& header,
                                                 std::span<const std::vector<std::uint8_t>> streams);

struct Parsed {
    Header header;
    std::vector<std::span<const std::uint8_t>> streams;
};

// Reverses assemble() for rows * cols >= 1 codes. FormatError E1 to E5.
[[nodiscard]] Parsed parse(std::span<const std::uint8_t> bytes, std::size_t rows, std::size_t cols,
                           int states);

}  // namespace pygolf::entropy
