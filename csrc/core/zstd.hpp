// zstd, loaded at run time from libzstd.so.1: building pygolf needs neither its headers nor a copy of it.
//
// Thread safety: pure functions; the library is loaded once, by the first call.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace pygolf {

// One zstd frame that holds `plain`. IoError if libzstd.so.1 cannot be loaded.
[[nodiscard]] std::vector<std::byte> zstd_compress(std::span<const std::byte> plain, int level);

// Fills `plain` from the frame in `stored`; allocates nothing that grows with the frame. Returns what is
// wrong, or nothing if `stored` is one frame of exactly plain.size() bytes. IoError as above.
[[nodiscard]] std::optional<std::string> zstd_decompress(std::span<const std::byte> stored,
                                                         std::span<std::byte> plain);

}  // namespace pygolf
