// Integer codes of 2 to 8 bits, packed without gaps.
//
// Layout (csrc/FORMAT.md, "Packed codes"): code i is a two's complement field of `bits` bits at bit i * bits
// of a little-endian bit stream, whose bit k is bit k % 8 of byte k / 8. Bits after the last code are zero.
// With 3 bits:
//
//     codes    1    -1     2    -3            fields 001 111 010 101
//     bit   0 2|3  5|6   8|9 11|12            stream from bit 0: 100 111 010 101 0000
//     byte 0 = 0b10'111'001 = 0xb9            byte 1 = 0b0000'101'0 = 0x0a
//
// Eight codes fill exactly `bits` bytes, which is the unit that the implementation works in.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace pygolf {

inline constexpr int kMinBits = 2;
inline constexpr int kMaxBits = 8;

// Largest magnitude of a code: 2^(bits-1) - 1. The range is symmetric, -2^(bits-1) is not a code.
[[nodiscard]] constexpr int max_code(int bits) { return (1 << (bits - 1)) - 1; }

// Bytes that `count` codes take: ceil(count * bits / 8). ArgumentError unless 2 <= bits <= 8.
[[nodiscard]] std::size_t packed_bytes(std::size_t count, int bits);

// Index of the first code whose magnitude is above max_code(bits), or codes.size() if there is none.
[[nodiscard]] std::size_t first_code_out_of_range(std::span<const std::int8_t> codes, int bits);

// Packs `codes` into `packed`, which has exactly packed_bytes(codes.size(), bits) bytes.
// ArgumentError for other sizes or widths and for a code that is out of range (names its position).
void pack_codes(std::span<const std::int8_t> codes, int bits, std::span<std::uint8_t> packed);

// Reverses pack_codes. Every bit pattern is accepted: the field 10...0 gives -2^(bits-1), which no packer
// writes, and bits after the last code are not looked at. ArgumentError for sizes or widths that do not fit.
void unpack_codes(std::span<const std::uint8_t> packed, int bits, std::span<std::int8_t> codes);

}  // namespace pygolf
