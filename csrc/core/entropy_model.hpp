// The probability model of the entropy coder: spread classes, bell curves in integers, tables that learn.
// csrc/FORMAT.md, "Entropy-coded codes", is the specification; every number here is part of the format.
//
// Thread safety: the free functions are pure; a table belongs to one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace pygolf::entropy {

// Class k stands for the spread (standard deviation) 2^((k - 16) / 8) codes. Classes below kTables have a
// table of their own. Above, a code loses `shift` low bits, which are stored as they are, so that what is
// left has a spread of 8 to 16 and one of the top eight tables.
inline constexpr int kClassesPerOctave = 8;
inline constexpr int kTables = 48;
inline constexpr int kClasses = 240;

[[nodiscard]] constexpr int shift_of(int spread_class) {
    return spread_class < kTables ? 0 : (spread_class - kTables) / kClassesPerOctave + 1;
}

[[nodiscard]] constexpr int table_of(int spread_class) {
    return spread_class - kClassesPerOctave * shift_of(spread_class);
}

// Frequencies of a table sum to 2^kFrequencyBits.
inline constexpr int kFrequencyBits = 16;
inline constexpr std::uint32_t kFrequencySum = std::uint32_t{1} << kFrequencyBits;

// 2^32 * 2^-x, rounded down at each factor 2^-(1/2), 2^-(1/4)... 2^-(1/65536) that x has, and at the shift.
[[nodiscard]] std::uint64_t exp2_negative(std::uint64_t x_q16);

// 2^16 * log2(e) * m^2 / (2 spread^2), rounded down, at the distance m = halves / 2 from the middle of a
// class of 0 to 63, halves < 2^12: the bell curve is 2 to minus that.
[[nodiscard]] std::uint64_t bell_exponent_q16(int spread_class, std::uint64_t halves);

// floor(2^16 * log2(x)), x >= 1.
[[nodiscard]] std::uint32_t log2_q16(std::uint64_t x);

// Where a symbol lies in [0, kFrequencySum).
struct Interval {
    std::uint16_t start;
    std::uint16_t frequency;  // at least 1; below kFrequencySum, since every table has several symbols
};

// Adaptive frequencies of the symbols 0 .. 2 * radius (code + radius) and of the escape, the last symbol. The
// curve they start from has its middle at 0 for quantizer 0, and at -1/2 for quantizer 1.
class SymbolTable {
  public:
    explicit SymbolTable(int table = 0, int quantizer = 0);

    [[nodiscard]] int radius() const { return radius_; }
    [[nodiscard]] std::uint32_t escape() const { return symbols_ - 1; }
    [[nodiscard]] Interval interval(std::uint32_t symbol) const { return intervals_[symbol]; }

    // The symbol whose interval holds `slot` < kFrequencySum.
    [[nodiscard]] std::uint32_t find(std::uint32_t slot) const {
        std::uint32_t symbol = first_[slot >> kBucketBits];
        symbol += slot - intervals_[symbol].start >= intervals_[symbol].frequency;  // no branch to mispredict
        while (slot - intervals_[symbol].start >= intervals_[symbol].frequency) ++symbol;
        return symbol;
    }

    // Counts an occurrence. Takes effect at the next rebuild().
    void count(std::uint32_t symbol, std::uint32_t weight) { counts_[symbol] += weight; }

    // Makes the intervals follow the counts.
    void rebuild();

  private:
    static constexpr std::size_t kMaxSymbols = 256;
    static constexpr int kBucketBits = 8;

    int radius_;
    std::uint32_t symbols_;
    std::uint64_t total_ = 0;  // of the counts that the intervals follow
    std::array<std::uint32_t, kMaxSymbols> counts_{};
    std::array<Interval, kMaxSymbols> intervals_{};
    std::array<std::uint8_t, (kFrequencySum >> kBucketBits)> first_{};  // symbol at the start of each bucket
};

// The tables as every stream begins: those of quantizer 0, and then those of quantizer 1, which only a
// trellis has.
[[nodiscard]] std::span<const SymbolTable, 2 * kTables> initial_tables();

}  // namespace pygolf::entropy
