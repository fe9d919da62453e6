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

// Codes are cut into the fewest streams of at most 1 << stream_bits; where that does not divide, the first
// streams are one code longer than the others.
[[nodiscard]] std::size_t stream_count(std::size_t codes, int stream_bits);
[[nodiscard]] Range stream_range(std::size_t codes, std::size_t streams, std::size_t stream);

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
[[nodiscard]] Parsed parse(std::span<const std::uint8_t> bytes, std::size_t rows, std::size_t cols);

}  // namespace pygolf::entropy
