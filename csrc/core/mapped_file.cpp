#include "pygolf/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "pygolf/error.hpp"

namespace pygolf {
namespace {

// The mapping outlives the descriptor, so this lives only while the file is being mapped.
class Descriptor {
  public:
    explicit Descriptor(int value) : value_(value) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (value_ >= 0) ::close(value_);
    }
    [[nodiscard]] int get() const { return value_; }

  private:
    int value_;
};

}  // namespace

MappedFile MappedFile::open(const std::filesystem::path& path, std::string_view rule) {
    const auto fail_to = [&](std::string_view action, int error_number) {
        fail_io(action, path, error_number, "; check the path and its permissions", message("[", rule, "] "));
    };
    // Without O_NONBLOCK opening a named pipe would wait for a writer instead of failing below.
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (file.get() < 0) fail_to("open", errno);
    struct stat info {};
    if (::fstat(file.get(), &info) != 0) fail_to("read the size of", errno);
    if (!S_ISREG(info.st_mode)) {
        fail<IoError>("[", rule, "] ", path.string(), " is not a regular file; pass the path of a file");
    }
    const auto size = static_cast<std::size_t>(info.st_size);
    if (size == 0) return MappedFile(path, {});
    void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (address == MAP_FAILED) fail_to("map", errno);
    return MappedFile(path, {static_cast<const std::byte*>(address), size});
}

MappedFile::MappedFile(std::filesystem::path path, std::span<const std::byte> bytes)
    : path_(std::move(path)), bytes_(bytes) {}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(bytes_, other.bytes_);
    return *this;
}

MappedFile::~MappedFile() {
    // munmap wants a pointer to non-const although it writes nothing.
    if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace pygolf
