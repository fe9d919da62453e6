// Header and tensor table of an artifact as bytes and as values: what reader and writer share. csrc/FORMAT.md
// is the specification. `where` is what messages call the file.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pygolf/artifact.hpp"

namespace pygolf {

inline constexpr std::size_t kHeaderBytes = 44;
inline constexpr std::uint32_t kMaxBlockBytes = std::uint32_t{16} << 20;  // manifest or table, decoded
inline constexpr std::size_t kMaxNameBytes = 255;

// A block of the header: manifest or tensor table, each one zstd frame.
struct Block {
    std::uint32_t stored_bytes = 0;
    std::uint32_t plain_bytes = 0;
    std::uint32_t crc32 = 0;  // of the stored bytes
};

struct Header {
    Block manifest;
    Block table;
    std::uint64_t file_bytes = 0;
};

[[nodiscard]] std::vector<std::byte> encode_header(const Header& header);
// Checks the file's first bytes and its size: rules A2 to A7.
[[nodiscard]] Header parse_header(std::span<const std::byte> file, const std::string& where);

[[nodiscard]] std::vector<std::byte> encode_table(std::span<const TensorInfo> tensors);
// Checks the table and that the sections, which begin at `offset` and follow one another, end with the file:
// rules A11 to A17 and A20.
[[nodiscard]] std::vector<TensorInfo> parse_table(std::span<const std::byte> table, std::uint64_t offset,
                                                  std::uint64_t file_bytes, const std::string& where);

// What is wrong with a tensor's description: A12 to A16 and A20.
[[nodiscard]] std::optional<Problem> tensor_problem(const TensorInfo& tensor);

// What is in a section of that role.
[[nodiscard]] Content content_of(const TensorInfo& tensor, Role role);

// What the spread of a tensor's codes follows: about 16 log2 of what its rows and columns are multiplied
// with.
struct LineLogs {
    std::vector<std::int16_t> rows;
    std::vector<std::int16_t> cols;
};

// Made from the other sections of a tensor with codes; plain(role) gives their plain bytes.
using PlainBytes = std::function<std::vector<std::byte>(Role role)>;
[[nodiscard]] LineLogs line_logs(const TensorInfo& tensor, const PlainBytes& plain);

// What the codec of one of the tensor's sections sees. `logs` of codes only; it must outlive the context.
[[nodiscard]] SectionContext section_context(const TensorInfo& tensor, Role role, const std::string& where,
                                             const LineLogs& logs = {});

}  // namespace pygolf
