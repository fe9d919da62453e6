// A file of training tokens, memory-mapped. csrc/FORMAT.md specifies the bytes and the rules S1 to S6.
//
//   byte 0      256 int32, little-endian: magic 20240520, version 1, token count n, the rest ignored
//   byte 1024   n uint16, little-endian: the tokens
//
// Ownership: a TokenShard owns its map; tokens() is valid as long as the shard lives, and stays valid when
// the shard is moved. Thread safety: any number of threads may read one shard.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>

#include "pygolf/mapped_file.hpp"

namespace pygolf {

inline constexpr std::uint32_t kShardMagic = 20240520;
inline constexpr std::uint32_t kShardVersion = 1;
inline constexpr std::uint64_t kShardHeaderBytes = 256 * sizeof(std::int32_t);
// The token count is a signed 32-bit field.
inline constexpr std::uint64_t kMaxShardTokens = std::numeric_limits<std::int32_t>::max();

class TokenShard {
  public:
    // Maps the file and checks header and size. Throws IoError (S1), VersionError (S3, a newer version) or
    // FormatError (S2 magic, S3 version, S4 size, S6 no tokens).
    static TokenShard open(const std::filesystem::path& path);

    [[nodiscard]] const std::filesystem::path& path() const { return file_.path(); }
    [[nodiscard]] std::span<const std::uint16_t> tokens() const { return tokens_; }

  private:
    TokenShard(MappedFile file, std::span<const std::uint16_t> tokens);

    MappedFile file_;
    std::span<const std::uint16_t> tokens_;
};

// Tokens [begin, end) of a shard file; kToEnd stands for the shard's token count.
inline constexpr std::uint64_t kToEnd = std::numeric_limits<std::uint64_t>::max();
struct ShardRange {
    std::filesystem::path path;
    std::uint64_t begin = 0;
    std::uint64_t end = kToEnd;
};

}  // namespace pygolf
