#include "atomic_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <utility>

#include "pygolf/error.hpp"

namespace pygolf {
namespace {

namespace fs = std::filesystem;

// A new file with a name of its own that is removed again unless renamed.
class TemporaryFile {
  public:
    explicit TemporaryFile(const fs::path& folder) {
        static std::atomic<unsigned> counter = 0;
        do {  // a name may be left over from a killed process with the same id
            path_ = folder / message(".pygolf-", ::getpid(), "-", counter++, ".tmp");
            descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        } while (descriptor_ < 0 && errno == EEXIST);
        if (descriptor_ < 0)
            fail_io("create a file in", folder, errno, "; does the folder exist, may you write to it?");
    }
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;
    ~TemporaryFile() {
        if (descriptor_ >= 0) ::close(descriptor_);
        if (!renamed_) ::unlink(path_.c_str());
    }

    [[nodiscard]] int descriptor() const { return descriptor_; }

    // Network file systems report a full disk as late as here.
    void sync_and_rename(const fs::path& target) {
        if (::fsync(descriptor_) != 0) fail_io("write", target, errno, "; the old file is unchanged");
        if (::close(std::exchange(descriptor_, -1)) != 0)
            fail_io("write", target, errno, "; the old file is unchanged");
        if (::rename(path_.c_str(), target.c_str()) != 0) fail_io("replace", target, errno);
        renamed_ = true;
    }

  private:
    fs::path path_;
    int descriptor_ = -1;
    bool renamed_ = false;
};

// Makes the rename itself last through a power cut. The file is whole either way, so a file system that
// cannot sync a folder is no error.
void sync_folder(const fs::path& folder) {
    const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return;
    ::fsync(descriptor);
    ::close(descriptor);
}

}  // namespace

void write_fully(int descriptor, std::span<const std::byte> bytes, const fs::path& path) {
    while (!bytes.empty()) {
        const auto written = ::write(descriptor, bytes.data(), bytes.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) {
            fail_io("write", path, errno,
                    message("; ", bytes.size(), " bytes were left to write, free some space"));
        }
        bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
}

void write_file_atomically(const fs::path& path, std::span<const std::byte> bytes) {
    std::error_code none;
    if (fs::exists(path, none) && !fs::is_regular_file(path, none)) {
        fail<IoError>("cannot write ", path.string(),
                      ": it exists and is not a regular file; choose another path");
    }
    const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
    TemporaryFile file(folder);
    write_fully(file.descriptor(), bytes, path);
    file.sync_and_rename(path);
    sync_folder(folder);
}

}  // namespace pygolf
