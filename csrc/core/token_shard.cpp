#include "pygolf/token_shard.hpp"

#include <bit>
#include <cstring>
#include <utility>

#include "pygolf/error.hpp"

namespace pygolf {
namespace {

static_assert(std::endian::native == std::endian::little, "tokens are used where they lie in the file");

std::int32_t header_word(std::span<const std::byte> bytes, std::size_t index) {
    std::int32_t word = 0;
    std::memcpy(&word, bytes.data() + index * sizeof word, sizeof word);
    return word;
}

void check_magic_and_version(const std::string& path, std::int32_t magic, std::int32_t version) {
    if (magic != std::int32_t{kShardMagic}) {
        fail<FormatError>("[S2] ", path, ": magic is ", magic, ", expected ", kShardMagic,
                          "; is this a token shard? make one with 'pygolf shard'");
    }
    if (version > std::int32_t{kShardVersion}) {
        fail<VersionError>("[S3] ", path, ": version is ", version, ", this build reads version ",
                           kShardVersion, "; install a newer pygolf or make the shard again");
    }
    if (version != std::int32_t{kShardVersion}) {
        fail<FormatError>("[S3] ", path, ": version is ", version, ", expected ", kShardVersion,
                          "; make the shard again with 'pygolf shard'");
    }
}

// Returns the token count that header and file size agree on.
std::size_t checked_token_count(const MappedFile& file) {
    const auto path = file.path().string();
    const auto bytes = file.bytes();
    if (bytes.size() < kShardHeaderBytes) {
        fail<FormatError>("[S4] ", path, ": file size is ", bytes.size(), " bytes, expected at least ",
                          kShardHeaderBytes, " (the header); copy or make the shard again");
    }
    check_magic_and_version(path, header_word(bytes, 0), header_word(bytes, 1));
    const std::int32_t count = header_word(bytes, 2);
    if (count < 1) {
        fail<FormatError>(
            "[S6] ", path, ": token count is ", count,
            ", expected 1 or more; remove the shard or make it again from text that is not empty");
    }
    const auto tokens = static_cast<std::size_t>(count);
    const auto expected = kShardHeaderBytes + 2 * tokens;
    if (bytes.size() != expected) {
        fail<FormatError>("[S4] ", path, ": file size is ", bytes.size(), " bytes, expected ", expected,
                          " (1024 + 2 x ", tokens, " tokens); copy or make the shard again");
    }
    return tokens;
}

}  // namespace

TokenShard TokenShard::open(const std::filesystem::path& path) {
    auto file = MappedFile::open(path, "S1");
    const auto count = checked_token_count(file);
    // A map begins on a page, so the tokens are aligned; their bytes are what the format says uint16 are.
    const auto* first = reinterpret_cast<const std::uint16_t*>(file.bytes().data() + kShardHeaderBytes);
    return TokenShard(std::move(file), {first, count});
}

TokenShard::TokenShard(MappedFile file, std::span<const std::uint16_t> tokens)
    : file_(std::move(file)), tokens_(tokens) {}

}  // namespace pygolf
