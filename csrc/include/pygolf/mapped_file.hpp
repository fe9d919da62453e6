// A whole file mapped read-only into memory.
//
// Ownership: the object owns the mapping and unmaps it when destroyed; bytes() is valid as long as the
// object, and moving the object moves the mapping without changing its address. Thread safety: any number of
// threads may read. The file must not be shortened while it is mapped: reading past its new end is a bus
// error. Files that pygolf writes are replaced by rename, which leaves existing maps intact.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace pygolf {

class MappedFile {
  public:
    // Maps a regular file; an empty one gives empty bytes(). Throws IoError that begins with "[rule] " if it
    // cannot be opened, is not a regular file or cannot be mapped.
    static MappedFile open(const std::filesystem::path& path, std::string_view rule);

    MappedFile(MappedFile&& other) noexcept;
    MappedFile& operator=(MappedFile&& other) noexcept;
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
    ~MappedFile();

    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }

  private:
    MappedFile(std::filesystem::path path, std::span<const std::byte> bytes);

    std::filesystem::path path_;
    std::span<const std::byte> bytes_;
};

}  // namespace pygolf
