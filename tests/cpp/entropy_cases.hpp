// Code tensors for the tests of the entropy coder, from integers only, so that tests in other languages can
// make the same ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace pygolf {

// x <- 6364136223846793005 x + 1442695040888963407 (mod 2^64), the top 32 bits of each x.
class Lcg {
  public:
    explicit Lcg(std::uint64_t seed) : state_(seed) {}

    std::uint32_t next() {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        return static_cast<std::uint32_t>(state_ >> 32);
    }

    // Sum of eight bytes of two draws, less its mean: a bell of standard deviation 209.
    std::int32_t bell() {
        std::int32_t sum = -1020;
        for (int draw = 0; draw < 2; ++draw) {
            for (std::uint32_t x = next(), byte = 0; byte < 4; ++byte, x >>= 8)
                sum += static_cast<std::int32_t>(x & 255);
        }
        return sum;
    }

  private:
    std::uint64_t state_;
};

struct CodeTensor {
    std::size_t rows;
    std::size_t cols;
    std::vector<std::int32_t> codes;  // [rows, cols]
};

// How wide a line is: from 64 to nearly 256 along the lines.
inline std::int64_t line_scale(std::size_t line, std::size_t lines) {
    return static_cast<std::int64_t>(64 + 192 * line / lines);
}

// Bell-shaped codes of standard deviation 209 * scale * (row's scale) * (column's scale) / 2^26.
inline CodeTensor varied_codes(std::size_t rows, std::size_t cols, std::int64_t scale, std::uint64_t seed) {
    CodeTensor tensor{rows, cols, {}};
    Lcg random(seed);
    for (std::size_t i = 0; i < rows; ++i) {
        for (std::size_t j = 0; j < cols; ++j) {
            const std::int64_t wide = random.bell() * scale * line_scale(i, rows) * line_scale(j, cols);
            tensor.codes.push_back(static_cast<std::int32_t>((wide + (1 << 25)) >> 26));
        }
    }
    return tensor;
}

// What a caller may know of the lines of varied_codes: -16 * log2 of the scale, rounded up to octaves.
inline std::vector<std::int16_t> varied_factors(std::size_t lines) {
    std::vector<std::int16_t> factors;
    for (std::size_t i = 0; i < lines; ++i) factors.push_back(line_scale(i, lines) < 128 ? -96 : -112);
    return factors;
}

}  // namespace pygolf
