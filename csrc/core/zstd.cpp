#include "zstd.hpp"

#include <dlfcn.h>

#include "pygolf/error.hpp"

namespace pygolf {
namespace {

// The part of zstd's stable interface that is used here; never unloaded.
struct ZstdLibrary {
    std::size_t (*compress_bound)(std::size_t plain_size);
    std::size_t (*compress)(void* out, std::size_t capacity, const void* plain, std::size_t size, int level);
    std::size_t (*decompress)(void* out, std::size_t capacity, const void* stored, std::size_t size);
    std::size_t (*frame_size)(const void* stored, std::size_t size);
    unsigned (*is_error)(std::size_t code);
    const char* (*error_name)(std::size_t code);
};

constexpr const char* kLibraryName = "libzstd.so.1";

[[noreturn]] void fail_to_load() {
    const char* reason = ::dlerror();
    fail<IoError>(
        "cannot load ", kLibraryName, ": ", reason ? reason : "unknown reason",
        "; install zstd's run-time library (Debian and Ubuntu: libzstd1, Fedora: libzstd, conda: zstd)");
}

template <typename Function>
void bind(void* handle, const char* name, Function*& function) {
    function = reinterpret_cast<Function*>(::dlsym(handle, name));
    if (!function) fail_to_load();
}

ZstdLibrary load() {
    void* handle = ::dlopen(kLibraryName, RTLD_NOW | RTLD_LOCAL);
    if (!handle) fail_to_load();
    ZstdLibrary library{};
    bind(handle, "ZSTD_compressBound", library.compress_bound);
    bind(handle, "ZSTD_compress", library.compress);
    bind(handle, "ZSTD_decompress", library.decompress);
    bind(handle, "ZSTD_findFrameCompressedSize", library.frame_size);
    bind(handle, "ZSTD_isError", library.is_error);
    bind(handle, "ZSTD_getErrorName", library.error_name);
    return library;
}

const ZstdLibrary& library() {
    static const ZstdLibrary loaded = load();
    return loaded;
}

}  // namespace

std::vector<std::byte> zstd_compress(std::span<const std::byte> plain, int level) {
    const ZstdLibrary& zstd = library();
    std::vector<std::byte> stored(zstd.compress_bound(plain.size()));
    const std::size_t size = zstd.compress(stored.data(), stored.size(), plain.data(), plain.size(), level);
    if (zstd.is_error(size))
        fail<Error>("zstd could not compress ", plain.size(), " bytes: ", zstd.error_name(size));
    stored.resize(size);
    return stored;
}

std::optional<std::string> zstd_decompress(std::span<const std::byte> stored, std::span<std::byte> plain) {
    const ZstdLibrary& zstd = library();
    const std::size_t frame = zstd.frame_size(stored.data(), stored.size());
    if (zstd.is_error(frame)) return message("zstd frame is invalid (", zstd.error_name(frame), ")");
    if (frame != stored.size()) return message("zstd frame ends at byte ", frame, " of ", stored.size());
    const std::size_t size = zstd.decompress(plain.data(), plain.size(), stored.data(), stored.size());
    if (zstd.is_error(size)) return message("zstd frame is invalid (", zstd.error_name(size), ")");
    if (size != plain.size()) return message("zstd frame holds ", size, " bytes");
    return std::nullopt;
}

}  // namespace pygolf
