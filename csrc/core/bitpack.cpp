#include "pygolf/bitpack.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "pygolf/error.hpp"

namespace pygolf {
namespace {

static_assert(std::endian::native == std::endian::little, "packing works on little-endian words");

using Word = std::uint64_t;
constexpr std::size_t kGroup = 8;  // codes a word; kGroup codes take `bits` bytes

// `pattern` repeated in every lane of `lane_bits` bits.
constexpr Word repeat(Word pattern, int lane_bits) {
    Word word = 0;
    for (int shift = 0; shift < 64; shift += lane_bits) word |= pattern << shift;
    return word;
}

// In lanes of 2 * half bits, moves the upper half's `used` bits down to the lower half's, or up again.
template <int half, int used>
constexpr Word squeeze(Word word) {
    constexpr Word lower = repeat((Word{1} << used) - 1, 2 * half);
    return (word & lower) | ((word >> (half - used)) & (lower << used));
}

template <int half, int used>
constexpr Word spread(Word word) {
    constexpr Word lower = repeat((Word{1} << used) - 1, 2 * half);
    return (word & lower) | ((word & (lower << used)) << (half - used));
}

// Eight codes, one a byte -> 8 * bits bits at the bottom of the word.
template <int bits>
constexpr Word pack_group(Word codes) {
    return squeeze<32, 4 * bits>(squeeze<16, 2 * bits>(squeeze<8, bits>(codes)));
}

// The reverse, with each field's sign bit extended over its byte: (field XOR s) - s, where s is the sign bit
// and bit 7 is borrowed for the subtraction so that bytes do not disturb each other.
template <int bits>
constexpr Word unpack_group(Word packed) {
    constexpr Word sign = repeat(Word{1} << (bits - 1), 8);
    constexpr Word top = repeat(0x80, 8);
    const Word fields = spread<8, bits>(spread<16, 2 * bits>(spread<32, 4 * bits>(packed)));
    if constexpr (bits == 8) return fields;
    return (((fields ^ sign) | top) - sign) ^ top;
}

Word load(const void* bytes, std::size_t count) {
    Word word = 0;
    std::memcpy(&word, bytes, count);
    return word;
}

// Whole words are stored while they fit: the zero bytes above `bits` are overwritten by the next group.
template <int bits>
void pack(std::span<const std::int8_t> codes, std::span<std::uint8_t> packed) {
    std::size_t code = 0;
    std::size_t byte = 0;
    for (; code + kGroup <= codes.size() && byte + sizeof(Word) <= packed.size();
         code += kGroup, byte += bits) {
        const Word word = pack_group<bits>(load(&codes[code], sizeof(Word)));
        std::memcpy(&packed[byte], &word, sizeof(Word));
    }
    for (; code < codes.size(); code += kGroup, byte += bits) {
        const Word word = pack_group<bits>(load(&codes[code], std::min(kGroup, codes.size() - code)));
        std::memcpy(&packed[byte], &word, std::min<std::size_t>(bits, packed.size() - byte));
    }
}

template <int bits>
void unpack(std::span<const std::uint8_t> packed, std::span<std::int8_t> codes) {
    std::size_t code = 0;
    std::size_t byte = 0;
    for (; code + kGroup <= codes.size() && byte + sizeof(Word) <= packed.size();
         code += kGroup, byte += bits) {
        const Word word = unpack_group<bits>(load(&packed[byte], sizeof(Word)));
        std::memcpy(&codes[code], &word, sizeof(Word));
    }
    for (; code < codes.size(); code += kGroup, byte += bits) {
        const Word word =
            unpack_group<bits>(load(&packed[byte], std::min<std::size_t>(bits, packed.size() - byte)));
        std::memcpy(&codes[code], &word, std::min(kGroup, codes.size() - code));
    }
}

// Calls f with the (checked) width as a template argument.
template <int width = kMinBits, typename F>
void with_width(int bits, F&& f) {
    if (bits == width) return f.template operator()<width>();
    if constexpr (width < kMaxBits) with_width<width + 1>(bits, f);
}

void check_sizes(std::size_t codes, int bits, std::size_t packed) {
    const std::size_t expected = packed_bytes(codes, bits);
    if (packed != expected) {
        fail<ArgumentError>("packed buffer has ", packed, " bytes, expected ", expected, " for ", codes,
                            " codes of ", bits, " bits; size it with packed_bytes()");
    }
}

}  // namespace

std::size_t packed_bytes(std::size_t count, int bits) {
    if (bits < kMinBits || bits > kMaxBits) {
        fail<ArgumentError>("bits is ", bits, ", expected ", kMinBits, " to ", kMaxBits);
    }
    const auto width = static_cast<std::size_t>(bits);
    return count / kGroup * width + (count % kGroup * width + 7) / 8;  // cannot overflow, unlike count * bits
}

std::size_t first_code_out_of_range(std::span<const std::int8_t> codes, int bits) {
    const int limit = max_code(bits);
    const auto outside = [limit](std::int8_t code) { return code > limit || code < -limit; };
    std::int8_t low = 0;
    std::int8_t high = 0;
    for (const std::int8_t code : codes) {  // plain extremes vectorise, an early exit does not
        low = std::min(low, code);
        high = std::max(high, code);
    }
    if (!outside(low) && !outside(high)) return codes.size();
    return static_cast<std::size_t>(std::ranges::find_if(codes, outside) - codes.begin());
}

void pack_codes(std::span<const std::int8_t> codes, int bits, std::span<std::uint8_t> packed) {
    check_sizes(codes.size(), bits, packed.size());
    if (const std::size_t bad = first_code_out_of_range(codes, bits); bad != codes.size()) {
        fail<ArgumentError>("code ", bad, " is ", int{codes[bad]}, ", expected a magnitude of at most ",
                            max_code(bits), " for ", bits, " bits; use more bits or clamp the codes");
    }
    with_width(bits, [&]<int width>() { pack<width>(codes, packed); });
}

void unpack_codes(std::span<const std::uint8_t> packed, int bits, std::span<std::int8_t> codes) {
    check_sizes(codes.size(), bits, packed.size());
    with_width(bits, [&]<int width>() { unpack<width>(packed, codes); });
}

}  // namespace pygolf
