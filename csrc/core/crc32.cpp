#include "crc32.hpp"

#include <array>
#include <bit>
#include <cstring>

namespace pygolf {
namespace {

static_assert(std::endian::native == std::endian::little, "eight bytes are taken as one little-endian word");

using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

// tables[k][b]: the remainder of byte b followed by k zero bytes, so that eight lookups advance by eight
// bytes.
constexpr Tables make_tables() {
    Tables tables{};
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
        std::uint32_t remainder = byte;
        for (int bit = 0; bit < 8; ++bit) remainder = (remainder >> 1) ^ (remainder & 1 ? 0xEDB88320U : 0U);
        tables[0][byte] = remainder;
    }
    for (std::size_t k = 1; k < tables.size(); ++k) {
        for (std::size_t byte = 0; byte < 256; ++byte) {
            const std::uint32_t shorter = tables[k - 1][byte];
            tables[k][byte] = (shorter >> 8) ^ tables[0][shorter & 0xFF];
        }
    }
    return tables;
}

constexpr Tables kTables = make_tables();

}  // namespace

std::uint32_t crc32(std::span<const std::byte> bytes) {
    std::uint32_t remainder = ~0U;
    for (; bytes.size() >= 8; bytes = bytes.subspan(8)) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes.data(), sizeof word);
        word ^= remainder;
        remainder = 0;
        for (std::size_t k = 0; k < 8; ++k) remainder ^= kTables[7 - k][(word >> (8 * k)) & 0xFF];
    }
    for (const std::byte byte : bytes) {
        remainder = (remainder >> 8) ^ kTables[0][(remainder ^ std::to_integer<std::uint32_t>(byte)) & 0xFF];
    }
    return ~remainder;
}

}  // namespace pygolf
