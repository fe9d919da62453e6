#include "entropy_model.hpp"

#include <algorithm>
#include <bit>
#include <memory>
#include <numeric>

namespace pygolf::entropy {
namespace {

// 2^32 * 2^-(1/2), 2^-(1/4), ... 2^-(1/65536), to nearest.
constexpr std::array<std::uint64_t, 16> kExp2 = {
    3037000500, 3611622603, 3938502376, 4112874773, 4202935003, 4248701965, 4271771996, 4283353945,
    4289156690, 4292061010, 4293513907, 4294240540, 4294603903, 4294785595, 4294876445, 4294921870};

// 2^40 * log2(e) / 2 * 2^(-k / 4) for k = 0..3, to nearest: what bell_exponent(16 + k, 1) is.
constexpr std::array<std::uint64_t, 4> kExponent = {793129986396, 666940162391, 560827591743, 471597911472};

// 2^16 * 2^(k / 8) for k = 0..7, to nearest.
constexpr std::array<int, kClassesPerOctave> kOctave = {65536, 71468,  77936,  84990,
                                                        92682, 101070, 110218, 120194};

// A table has symbols for codes of up to 8 spreads and 4.
constexpr int table_radius(int table) {
    return 4 + (kOctave[static_cast<unsigned>(table % kClassesPerOctave)] >> (15 - table / 8));
}

static_assert(table_radius(0) == 6 && table_radius(kTables - 1) == 121);

}  // namespace

std::uint64_t exp2_negative(std::uint64_t x_q16) {
    const std::uint64_t whole = x_q16 >> 16;
    if (whole > 32) return 0;
    std::uint64_t result = std::uint64_t{1} << 32;
    for (std::size_t bit = 0; bit < kExp2.size(); ++bit) {
        if (x_q16 >> (15 - bit) & 1) result = result * kExp2[bit] >> 32;
    }
    return result >> whole;
}

std::uint64_t bell_exponent_q16(int spread_class, std::uint64_t halves) {
    const int quarter = spread_class - 16;  // the spread's square is 2^(quarter / 4)
    return halves * halves * kExponent[static_cast<unsigned>(quarter) % 4] >> (26 + (quarter >> 2));
}

std::uint32_t log2_q16(std::uint64_t x) {
    const int whole = static_cast<int>(std::bit_width(x)) - 1;
    std::uint64_t mantissa = whole > 31 ? x >> (whole - 31) : x << (31 - whole);  // [2^31, 2^32)
    std::uint32_t result = static_cast<std::uint32_t>(whole);
    for (int bit = 0; bit < 16; ++bit) {  // squaring doubles the logarithm
        mantissa = mantissa * mantissa >> 31;
        const bool carry = mantissa >> 32 != 0;
        result = result << 1 | static_cast<std::uint32_t>(carry);
        mantissa >>= static_cast<int>(carry);
    }
    return result;
}

SymbolTable::SymbolTable(int table, int quantizer)
    : radius_(table_radius(table)), symbols_(static_cast<std::uint32_t>(2 * radius_ + 2)) {
    std::array<std::uint64_t, kMaxSymbols> bell{};
    for (int code = -radius_; code <= radius_; ++code) {
        const auto halves = static_cast<std::uint64_t>(std::abs(2 * code + quantizer));
        bell[static_cast<std::size_t>(code + radius_)] = exp2_negative(bell_exponent_q16(table, halves));
    }
    const std::uint64_t area = std::accumulate(bell.begin(), bell.end(), std::uint64_t{0});
    for (std::size_t symbol = 0; symbol < symbols_; ++symbol)
        counts_[symbol] = static_cast<std::uint32_t>((bell[symbol] << kFrequencyBits) / area);
    rebuild();
}

void SymbolTable::rebuild() {
    const std::uint64_t total =
        std::accumulate(counts_.begin(), counts_.begin() + symbols_, std::uint64_t{0});
    if (total == total_) return;
    total_ = total;
    // Every symbol gets 1 and a share of the rest in proportion to its count; the escape, what rounding
    // leaves.
    const std::uint64_t share = (std::uint64_t{kFrequencySum - symbols_} << 32) / total;
    std::uint64_t sum = 0;
    std::uint32_t start = 0;
    std::size_t bucket = 0;
    for (std::uint32_t symbol = 0; symbol < symbols_; ++symbol) {
        sum += counts_[symbol];
        const bool last = symbol == escape();
        const auto end = last ? kFrequencySum : static_cast<std::uint32_t>(symbol + 1 + (sum * share >> 32));
        intervals_[symbol] = {static_cast<std::uint16_t>(start), static_cast<std::uint16_t>(end - start)};
        for (; bucket < first_.size() && bucket << kBucketBits < end; ++bucket)
            first_[bucket] = static_cast<std::uint8_t>(symbol);
        start = end;
    }
}

std::span<const SymbolTable, 2 * kTables> initial_tables() {
    static const auto tables = [] {
        auto made = std::make_unique<std::array<SymbolTable, 2 * kTables>>();
        for (int i = 0; i < 2 * kTables; ++i)
            (*made)[static_cast<std::size_t>(i)] = SymbolTable(i % kTables, i / kTables);
        return made;
    }();
    return *tables;
}

}  // namespace pygolf::entropy
