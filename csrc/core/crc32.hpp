// CRC-32 as in IEEE 802.3, zlib and PNG: polynomial 0xEDB88320 (reflected), initial value and final XOR all
// ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace pygolf {

[[nodiscard]] std::uint32_t crc32(std::span<const std::byte> bytes);

}  // namespace pygolf
