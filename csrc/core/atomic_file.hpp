// Files that appear under their name only when whole.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace pygolf {

// Writes `bytes` to a temporary file in the folder of `path`, syncs it, renames it to `path` and syncs the
// folder. IoError (disk full included): the temporary file is gone and what was at `path` is untouched. Only
// a regular file is ever replaced.
void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes);

// Writes all of `bytes` to the open file; messages call it `path`. IoError.
void write_fully(int descriptor, std::span<const std::byte> bytes, const std::filesystem::path& path);

}  // namespace pygolf
