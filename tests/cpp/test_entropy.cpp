// Entropy-coded codes: every kind of tensor comes back, sizes are near the entropy, bytes are pinned, damage
// never crashes. tests/artifact/test_entropy_reference.py decodes the same golden files by the specification.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "entropy_cases.hpp"
#include "pygolf/entropy.hpp"
#include "pygolf/error.hpp"

namespace pygolf {
namespace {

using Bytes = std::vector<std::uint8_t>;
using Codes = std::vector<std::int32_t>;

constexpr EntropyOptions kSmallStreams{.stream_bits = kMinStreamBits, .threads = 1};

Bytes encode(const CodeTensor& tensor, const EntropyOptions& options = {},
             const SideInformation& factors = {}) {
    return encode_codes(std::span<const std::int32_t>(tensor.codes), tensor.rows, tensor.cols, options,
                        factors);
}

Codes decode(const Bytes& bytes, std::size_t rows, std::size_t cols, const SideInformation& factors = {},
             int threads = 1) {
    Codes codes(rows * cols, 99);
    decode_codes(bytes, rows, cols, std::span(codes), factors, threads);
    return codes;
}

std::vector<std::int8_t> narrow(const Codes& codes) {
    std::vector<std::int8_t> narrowed;
    for (const std::int32_t code : codes) narrowed.push_back(static_cast<std::int8_t>(code));
    return narrowed;
}

CodeTensor filled(std::size_t rows, std::size_t cols, const std::function<std::int32_t()>& code) {
    CodeTensor tensor{rows, cols, Codes(rows * cols)};
    std::ranges::generate(tensor.codes, code);
    return tensor;
}

// 0, 1, 2...
std::vector<std::int16_t> ramp(std::size_t count) {
    std::vector<std::int16_t> numbers(count);
    std::iota(numbers.begin(), numbers.end(), std::int16_t{0});
    return numbers;
}

// Bytes of the codes if each class of codes had a table of its own that cost nothing.
double class_entropy_bytes(const CodeTensor& tensor, const std::function<int(std::size_t)>& class_of) {
    std::map<int, std::map<std::int32_t, double>> counts;
    std::map<int, double> totals;
    for (std::size_t i = 0; i < tensor.codes.size(); ++i) {
        counts[class_of(i)][tensor.codes[i]] += 1;
        totals[class_of(i)] += 1;
    }
    double bits = 0;
    for (const auto& [k, table] : counts) {
        for (const auto& [code, count] : table) bits -= count * std::log2(count / totals[k]);
    }
    return bits / 8;
}

double entropy_bytes(const CodeTensor& tensor) {
    return class_entropy_bytes(tensor, [](std::size_t) { return 0; });
}

// The rule at the start of the FormatError that decoding throws; "none" if it throws none.
std::string broken_rule(const Bytes& bytes, std::size_t rows, std::size_t cols,
                        const SideInformation& factors = {}) {
    try {
        decode(bytes, rows, cols, factors);
    } catch (const FormatError& error) {
        return std::string(error.what()).substr(0, 4);
    }
    return "none";
}

// --- round trips ---

struct Shape {
    std::size_t rows;
    std::size_t cols;
};

class EntropyShape : public testing::TestWithParam<Shape> {};

TEST_P(EntropyShape, ComesBackForEveryWidthAndOption) {
    const auto [rows, cols] = GetParam();
    for (const std::int64_t scale : {0, 1, 40, 60, 4'000, 1'000'000'000}) {
        const CodeTensor tensor = varied_codes(rows, cols, scale, 7);
        for (const EntropyOptions& options : {EntropyOptions{}, kSmallStreams}) {
            const Bytes bytes = encode(tensor, options);
            ASSERT_EQ(decode(bytes, rows, cols), tensor.codes) << "scale " << scale;
            if (scale > 60) continue;
            const auto codes = narrow(tensor.codes);
            ASSERT_EQ(encode_codes(std::span(codes), rows, cols, options), bytes) << "scale " << scale;
            std::vector<std::int8_t> decoded(codes.size());
            decode_codes(bytes, rows, cols, std::span(decoded));
            ASSERT_EQ(decoded, codes) << "scale " << scale;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Shapes, EntropyShape,
                         testing::Values(Shape{0, 0}, Shape{0, 7}, Shape{7, 0}, Shape{1, 1}, Shape{1, 5000},
                                         Shape{5000, 1}, Shape{63, 65}, Shape{64, 64}, Shape{2, 127},
                                         Shape{129, 3}, Shape{200, 311}));

TEST(Entropy, ExtremeCodesComeBack) {
    using Limits = std::numeric_limits<std::int32_t>;
    Lcg random(1);
    const std::map<std::string, std::function<std::int32_t()>> kinds = {
        {"highest", [] { return Limits::max(); }},
        {"lowest", [] { return Limits::min(); }},
        {"any 32 bits", [&] { return static_cast<std::int32_t>(random.next()); }},
        {"both ends", [&] { return random.next() >> 31 ? Limits::max() : Limits::min(); }},
        {"rarely the ends",
         [&] { return random.next() % 500   ? 0
                      : random.next() >> 31 ? Limits::max()
                                            : Limits::min(); }},
        {"any byte", [&] { return static_cast<std::int32_t>(random.next() % 256) - 128; }},
    };
    for (const auto& [name, code] : kinds) {
        const CodeTensor tensor = filled(80, 90, code);
        EXPECT_EQ(decode(encode(tensor), 80, 90), tensor.codes) << name;
    }
}

TEST(Entropy, ThreadsChangeNothing) {
    const CodeTensor tensor = varied_codes(300, 200, 50, 3);
    for (const int states : {1, 8}) {
        const SideInformation side{{}, {}, states};
        const Bytes bytes = encode(tensor, {kMinStreamBits, 1}, side);
        EXPECT_EQ(encode(tensor, {kMinStreamBits, 4}, side), bytes);
        EXPECT_EQ(decode(bytes, 300, 200, side, 4), tensor.codes);
    }
}

TEST(Entropy, CodesOfATrellisComeBack) {
    for (const auto& [rows, cols] :
         {Shape{1, 1}, Shape{1, 5000}, Shape{5000, 1}, Shape{63, 65}, Shape{129, 3}}) {
        for (const std::int64_t scale : {0, 1, 40, 4'000, 1'000'000'000}) {
            const CodeTensor tensor = varied_codes(rows, cols, scale, 7);
            const auto columns = ramp(cols);
            for (const int states : {4, 8}) {
                const SideInformation side{{}, columns, states};
                const Bytes bytes = encode(tensor, kSmallStreams, side);
                ASSERT_EQ(decode(bytes, rows, cols, side), tensor.codes) << rows << " rows, scale " << scale;
            }
        }
    }
}

// --- sizes ---

TEST(EntropySize, FollowsTheSpreadOfRowsAndColumns) {
    const CodeTensor tensor = varied_codes(1024, 1024, 24, 5);
    const double ideal = class_entropy_bytes(tensor, [](std::size_t i) {
        const std::int64_t scale = line_scale(i / 1024, 1024) * line_scale(i % 1024, 1024);
        return static_cast<int>(std::log2(static_cast<double>(scale) / 4096) * 6);  // 24 classes
    });
    const auto bytes = static_cast<double>(encode(tensor).size());
    EXPECT_LT(bytes, ideal * 1.005);  // rows, columns and tables included
    EXPECT_LT(bytes, entropy_bytes(tensor) * 0.97);
}

TEST(EntropySize, FactorsReplaceDescriptions) {
    const CodeTensor tensor = varied_codes(256, 256, 12, 6);
    const auto lines = varied_factors(256);
    const SideInformation factors{lines, lines};
    const Bytes without = encode(tensor);
    const Bytes with = encode(tensor, {}, factors);
    EXPECT_LT(with.size() + 60, without.size());
    EXPECT_EQ(decode(with, 256, 256, factors), tensor.codes);
    EXPECT_EQ(broken_rule(with, 256, 256), "[E1]");
    EXPECT_EQ(encode(tensor, {}, {std::vector<std::int16_t>(256, 5), {}}).size(), without.size());
}

TEST(EntropySize, TablesLearnWhatIsNoBell) {
    Lcg random(2);
    const auto bell = [&] { return (random.bell() * 3 + 128) >> 8; };  // standard deviation 2.4
    const std::map<std::string, std::function<std::int32_t()>> kinds = {
        {"bell", bell},
        {"clipped", [&] { return std::clamp(bell(), -3, 3); }},
        {"no ones",
         [&] {
             const int q = bell();
             return std::abs(q) == 1 ? 0 : q;
         }},
        {"one side", [&] { return std::abs(bell()); }},
        {"even", [&] { return static_cast<std::int32_t>(random.next() % 16); }},
    };
    for (const auto& [name, code] : kinds) {
        const CodeTensor tensor = filled(512, 512, code);
        EXPECT_LT(static_cast<double>(encode(tensor).size()), entropy_bytes(tensor) * 1.003) << name;
    }
}

TEST(EntropySize, EqualCodesCostAlmostNothingButBoundTheExpansion) {
    const CodeTensor tensor = filled(1024, 1024, [] { return -7; });
    const Bytes bytes = encode(tensor, {kMaxStreamBits, 1});
    EXPECT_LT(bytes.size(), 64U);
    EXPECT_LT(tensor.codes.size(), bytes.size() * kMaxCodesPerByte);
    EXPECT_EQ(decode(bytes, 1024, 1024), tensor.codes);
}

// --- the bytes themselves ---

TEST(EntropyBytes, ASmallTensorIsPinned) {
    const CodeTensor tensor{2, 6, {0, 1, -1, 2, -2, 3, 0, 0, 40, -1, 0, -3}};
    const Bytes bytes = encode(tensor);
    EXPECT_EQ(bytes, (Bytes{0x06,                                            // streams of 2^18, learning 0
                            0x06,                                            // centre 3
                            0x1f, 0x00,                                      // base class 31
                            0x36, 0x38, 0x6f, 0x27, 0x2f, 0x86, 0x52, 0x01,  // state
                            0x7f, 0x39, 0x30, 0x4f,                          // a word
                            0x04}));                                         // raw bits of the escaped 40
    EXPECT_EQ(decode(bytes, 2, 6), tensor.codes);
}

Bytes read_golden(const std::string& name) {
    std::ifstream file(std::string(PYGOLF_GOLDEN_DIR) + "/" + name, std::ios::binary);
    EXPECT_TRUE(file) << name;
    return {std::istreambuf_iterator<char>(file), {}};
}

TEST(EntropyBytes, GoldenFiles) {
    const CodeTensor varied = varied_codes(72, 64, 30, 11);  // factors, residuals, two streams
    const auto rows = varied_factors(72);
    EXPECT_EQ(encode(varied, kSmallStreams, {rows, {}}), read_golden("entropy_varied.bin"));
    const CodeTensor wide = varied_codes(7, 40, 300'000, 12);  // shifts and escapes
    EXPECT_EQ(encode(wide), read_golden("entropy_wide.bin"));
    const auto columns = ramp(64);                                       // half of them outside the trellis
    for (const auto& [states, scale] : {std::pair{4, 30}, {8, 3000}}) {  // 3000: low bits beside the trellis
        const Bytes bytes = encode(varied_codes(73, 64, scale, 13), kSmallStreams, {{}, columns, states});
        EXPECT_EQ(bytes, read_golden("entropy_trellis" + std::to_string(states) + ".bin"));
    }
}

// --- damage ---

TEST(EntropyDamage, EveryTruncationIsNoticed) {
    const CodeTensor tensor = varied_codes(64, 66, 40, 8);
    const Bytes bytes = encode(tensor, kSmallStreams);
    for (std::size_t size = 0; size < bytes.size(); ++size) {
        const Bytes cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
        ASSERT_NE(broken_rule(cut, 64, 66), "none") << size << " bytes";
    }
    Bytes longer = bytes;
    longer.push_back(0);
    EXPECT_EQ(broken_rule(longer, 64, 66), "[E4]");
}

TEST(EntropyDamage, FlippedBitsNeverCrash) {
    const CodeTensor narrow_codes = varied_codes(64, 66, 40, 9);  // two streams
    const CodeTensor wide_codes = varied_codes(4, 66, 50'000, 9);
    for (const CodeTensor& tensor : {narrow_codes, wide_codes}) {
        const Bytes bytes = encode(tensor, kSmallStreams);
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            for (const int flip : {1, 128}) {
                Bytes damaged = bytes;
                damaged[i] = static_cast<std::uint8_t>(damaged[i] ^ flip);
                (void)broken_rule(damaged, tensor.rows, tensor.cols);
            }
        }
    }
}

TEST(EntropyDamage, EachRuleHasItsError) {
    const CodeTensor tensor = varied_codes(70, 90, 40, 8);
    const Bytes bytes = encode(tensor, kSmallStreams);
    const auto with = [&](std::size_t position, int value) {
        Bytes damaged = bytes;
        damaged[position] = static_cast<std::uint8_t>(value);
        return damaged;
    };
    EXPECT_EQ(broken_rule({}, 1, 1), "[E1]");
    EXPECT_EQ(broken_rule(with(0, bytes[0] | 15), 70, 90), "[E1]");  // streams of 2^27 codes
    EXPECT_EQ(broken_rule(bytes, 6300, 1), "[E1]");                  // lines of one code
    EXPECT_EQ(broken_rule(with(4, 49), 70, 90), "[E1]");             // residuals of class 49
    EXPECT_EQ(broken_rule(with(10, 0x7f), 70, 90), "[E2]");          // a stream longer than all bytes
    EXPECT_EQ(broken_rule(Bytes(bytes.begin(), bytes.end() - 1), 70, 90), "[E3]");
    EXPECT_EQ(broken_rule(with(bytes.size() - 1, bytes.back() ^ 64), 70, 90), "[E4]");
    EXPECT_EQ(broken_rule(Bytes(10), 1 << 10, 1 << 10), "[E6]");
    EXPECT_EQ(broken_rule({0}, 0, 5), "[E6]");

    const Bytes wide = encode(filled(9, 9, [] { return 128; }));
    std::vector<std::int8_t> out(81);
    EXPECT_THROW(decode_codes(wide, 9, 9, std::span(out)), FormatError);
}

TEST(Entropy, RefusesWhatDoesNotFit) {
    const Codes codes(12);
    EXPECT_THROW((void)encode_codes(std::span(codes), 3, 5), ArgumentError);
    EXPECT_THROW((void)encode_codes(std::span(codes), 12, 0), ArgumentError);
    EXPECT_THROW((void)encode_codes(std::span(codes), 3, 4, {kMinStreamBits - 1, 1}), ArgumentError);
    EXPECT_THROW((void)encode_codes(std::span(codes), 3, 4, {kMaxStreamBits + 1, 1}), ArgumentError);
    const std::vector<std::int16_t> factors(4);
    EXPECT_THROW((void)encode_codes(std::span(codes), 3, 4, {}, {factors, {}}), ArgumentError);
    EXPECT_NO_THROW((void)encode_codes(std::span(codes), 3, 4, {}, {{}, factors}));
    EXPECT_THROW((void)encode_codes(std::span(codes), 3, 4, {}, {{}, {}, 2}), ArgumentError);
}

}  // namespace
}  // namespace pygolf
