// Packed codes: the layout by literal bytes, a bit-by-bit twin, and every width at awkward lengths.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "pygolf/bitpack.hpp"
#include "pygolf/error.hpp"

namespace pygolf {
namespace {

using Bytes = std::vector<std::uint8_t>;
using Codes = std::vector<std::int8_t>;

Bytes pack(const Codes& codes, int bits) {
    Bytes packed(packed_bytes(codes.size(), bits), 0xAA);  // every byte must be written
    pack_codes(codes, bits, packed);
    return packed;
}

Codes unpack(const Bytes& packed, int bits, std::size_t count) {
    Codes codes(count, 99);
    unpack_codes(packed, bits, codes);
    return codes;
}

// The specification read literally: one bit at a time.
Bytes pack_slowly(const Codes& codes, int bits) {
    Bytes packed((codes.size() * static_cast<std::size_t>(bits) + 7) / 8, 0);
    std::size_t position = 0;
    for (const int code : codes) {
        for (int bit = 0; bit < bits; ++bit, ++position) {
            const int value = ((code >> bit) & 1) << (position % 8);
            packed[position / 8] = static_cast<std::uint8_t>(packed[position / 8] | value);
        }
    }
    return packed;
}

Codes random_codes(std::size_t count, int bits, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_int_distribution<int> code(-max_code(bits), max_code(bits));
    Codes codes(count);
    for (auto& c : codes) c = static_cast<std::int8_t>(code(random));
    return codes;
}

TEST(Bitpack, LayoutIsPinnedByLiteralBytes) {
    EXPECT_EQ(pack({1, -1, 0, 1, -1}, 2), (Bytes{0x4D, 0x03}));
    EXPECT_EQ(pack({1, -1, 2, -3}, 3), (Bytes{0xB9, 0x0A}));
    EXPECT_EQ(pack({1, -1, 7}, 4), (Bytes{0xF1, 0x07}));
    EXPECT_EQ(pack({1, -1, 15, -15}, 5), (Bytes{0xE1, 0xBF, 0x08}));
    EXPECT_EQ(pack({1, -1, 31, -31, 0, 5, -6, 2, 3}, 6), (Bytes{0xC1, 0xFF, 0x85, 0x40, 0xA1, 0x0B, 0x03}));
    EXPECT_EQ(pack({1, -1, 63}, 7), (Bytes{0x81, 0xFF, 0x0F}));
    EXPECT_EQ(pack({1, -1, 127, -127}, 8), (Bytes{0x01, 0xFF, 0x7F, 0x81}));
}

class BitpackWidth : public testing::TestWithParam<int> {};

TEST_P(BitpackWidth, EqualsTheBitwiseTwinAndComesBack) {
    const int bits = GetParam();
    for (std::size_t count = 0; count <= 70; ++count) {
        const Codes codes = random_codes(count, bits, static_cast<unsigned>(count));
        const Bytes packed = pack(codes, bits);
        ASSERT_EQ(packed, pack_slowly(codes, bits)) << count << " codes";
        ASSERT_EQ(unpack(packed, bits, count), codes) << count << " codes";
    }
    const Codes many = random_codes(100'003, bits, 7);
    EXPECT_EQ(pack(many, bits), pack_slowly(many, bits));
    EXPECT_EQ(unpack(pack(many, bits), bits, many.size()), many);
}

TEST_P(BitpackWidth, UnpackTakesEveryFieldAsTwosComplement) {
    const int bits = GetParam();
    Codes expected;  // 2^bits fields: 0 .. max, then -2^(bits-1) .. -1
    for (int field = 0; field < (1 << bits); ++field) {
        expected.push_back(static_cast<std::int8_t>(field > max_code(bits) ? field - (1 << bits) : field));
    }
    EXPECT_EQ(unpack(pack_slowly(expected, bits), bits, expected.size()), expected);
}

TEST_P(BitpackWidth, RejectsACodeOutOfRangeByPosition) {
    const int bits = GetParam();
    for (const int outside : {max_code(bits) + 1, -max_code(bits) - 1}) {
        if (outside > 127) continue;
        Codes codes(40, 0);
        codes[37] = static_cast<std::int8_t>(outside);
        EXPECT_EQ(first_code_out_of_range(codes, bits), 37U);
        try {
            pack(codes, bits);
            FAIL() << "accepted " << outside;
        } catch (const ArgumentError& error) {
            EXPECT_NE(std::string(error.what()).find("code 37 is " + std::to_string(outside)),
                      std::string::npos);
        }
    }
    EXPECT_EQ(first_code_out_of_range(random_codes(1000, bits, 1), bits), 1000U);
}

INSTANTIATE_TEST_SUITE_P(Widths, BitpackWidth, testing::Range(kMinBits, kMaxBits + 1));

TEST(Bitpack, SizesAreExactAndDoNotOverflow) {
    EXPECT_EQ(packed_bytes(0, 6), 0U);
    EXPECT_EQ(packed_bytes(5, 6), 4U);
    EXPECT_EQ(packed_bytes(8, 6), 6U);
    EXPECT_EQ(packed_bytes(std::size_t{1} << 62, 8), std::size_t{1} << 62);
}

TEST(Bitpack, RejectsWidthsAndSizesThatDoNotFit) {
    Codes codes(5);
    Bytes packed(4);
    EXPECT_THROW((void)packed_bytes(5, 1), ArgumentError);
    EXPECT_THROW((void)packed_bytes(5, 9), ArgumentError);
    EXPECT_NO_THROW(pack_codes(codes, 6, packed));
    EXPECT_THROW(pack_codes(codes, 4, packed), ArgumentError);
    EXPECT_THROW(unpack_codes(packed, 4, codes), ArgumentError);
}

}  // namespace
}  // namespace pygolf
