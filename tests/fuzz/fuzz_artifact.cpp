// Fuzz target of the artifact reader: any file is read whole or refused with a FormatError. Checksums, zstd
// and the file's size would keep nearly every change from the reader, so this program's crc32() is always 0,
// its zstd frames are the plain bytes, and the size in the header is set right. Build it with sanitizers,
// from the repository root; its own functions take the place of the library's:
//
//     cmake -S . -B build -DPYGOLF_SANITIZE=address,undefined && cmake --build build --target pygolf_core
//     g++ -std=c++20 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -Icsrc/include
//         tests/fuzz/fuzz_artifact.cpp build/csrc/libpygolf_core.a -ldl -pthread -o fuzz_artifact
//     ./fuzz_artifact 1000000
//
// Without libFuzzer (clang++ -fsanitize=fuzzer,... -DPYGOLF_LIBFUZZER), a loop of its own mutates valid
// files: fuzz_artifact EXECUTIONS [SEED].
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "../../csrc/core/crc32.hpp"
#include "../../csrc/core/zstd.hpp"
#include "mutate.hpp"
#include "pygolf/artifact.hpp"
#include "pygolf/error.hpp"

namespace pygolf {

std::uint32_t crc32(std::span<const std::byte>) { return 0; }

std::vector<std::byte> zstd_compress(std::span<const std::byte> plain, int) {
    return {plain.begin(), plain.end()};
}

std::optional<std::string> zstd_decompress(std::span<const std::byte> stored, std::span<std::byte> plain) {
    if (stored.size() != plain.size()) return "not a frame";
    std::ranges::copy(stored, plain.begin());
    return std::nullopt;
}

}  // namespace pygolf

namespace {

constexpr int kSizeOffset = 32;  // of the file's size in the header

// A file in memory that is written again for every execution.
const std::filesystem::path& file_with(const std::uint8_t* data, std::uint64_t size) {
    static const int descriptor = ::memfd_create("fuzz_artifact", MFD_CLOEXEC);
    static const std::filesystem::path path = "/proc/self/fd/" + std::to_string(descriptor);
    const auto bytes = static_cast<ssize_t>(size);
    if (::ftruncate(descriptor, bytes) != 0 || ::pwrite(descriptor, data, size, 0) != bytes) std::abort();
    if (size >= kSizeOffset + sizeof size && ::pwrite(descriptor, &size, sizeof size, kSizeOffset) < 0)
        std::abort();
    return path;
}

void read_all(const pygolf::ArtifactReader& reader) {
    for (const auto& tensor : reader.tensors()) {
        try {
            std::vector<float> values(tensor.elements());
            reader.dequantize(tensor.name, values);
            for (const auto& section : tensor.sections) (void)reader.raw(tensor.name, section.role);
        } catch (const pygolf::FormatError&) {
        }
    }
    reader.check(1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        read_all(pygolf::ArtifactReader::open(file_with(data, size)));
    } catch (const pygolf::FormatError&) {
    }
    return 0;
}

#ifndef PYGOLF_LIBFUZZER
namespace {

std::vector<std::int16_t> narrow_codes(std::size_t rows, std::size_t cols, std::int64_t scale) {
    const auto tensor = pygolf::varied_codes(rows, cols, scale, 1);
    return {tensor.codes.begin(), tensor.codes.end()};
}

void add_factors(pygolf::ArtifactWriter& writer, std::size_t rows, std::size_t cols, int states,
                 pygolf::Codec codec) {
    const auto row_logs = pygolf::varied_factors(rows);
    const auto col_logs = pygolf::varied_factors(cols);
    writer.add_factors("factors", narrow_codes(rows, cols, states == 1 ? 4'000 : 40),
                       {states, 0.01F, row_logs, col_logs}, codec);
}

void add_rows(pygolf::ArtifactWriter& writer, std::size_t rows, std::size_t cols, pygolf::Codec codec) {
    const auto wide = narrow_codes(rows, cols, 20);
    const std::vector<std::int8_t> codes(wide.begin(), wide.end());
    const std::vector<std::uint16_t> scales(rows, 0x2E66);
    writer.add_rows("rows", static_cast<std::uint32_t>(rows), static_cast<std::uint32_t>(cols), codes, scales,
                    8, codec);
}

void add_dense(pygolf::ArtifactWriter& writer, pygolf::DType dtype, pygolf::Codec codec) {
    writer.add_dense("dense", dtype, {2, 3, 2}, std::vector<std::byte>(12 * pygolf::dtype_bytes(dtype)),
                     codec);
}

template <typename Add>
Bytes file_of(const Add& add) {
    pygolf::ArtifactWriter writer("{}");
    add(writer);
    const auto file = writer.serialize(1);
    Bytes bytes(file.size());
    std::memcpy(bytes.data(), file.data(), file.size());
    return bytes;
}

}  // namespace

std::vector<Bytes> valid_inputs() {
    using pygolf::ArtifactWriter;
    using pygolf::Codec;
    std::vector<Bytes> files;
    for (const auto& [rows, cols] : {std::pair{1, 1}, {3, 5}, {64, 66}, {2, 127}}) {
        for (const int states : {1, 4, 8}) {
            for (const Codec codec : {Codec::kEntropy, Codec::kZstd})
                files.push_back(
                    file_of([&](ArtifactWriter& w) { add_factors(w, rows, cols, states, codec); }));
        }
        for (const Codec codec : {Codec::kEntropy, Codec::kBitpack, Codec::kBytesZstd})
            files.push_back(file_of([&](ArtifactWriter& w) { add_rows(w, rows, cols, codec); }));
    }
    for (const auto dtype : {pygolf::DType::kFloat32, pygolf::DType::kFloat16, pygolf::DType::kBFloat16})
        files.push_back(file_of([&](ArtifactWriter& w) { add_dense(w, dtype, Codec::kRaw); }));
    files.push_back(file_of([](ArtifactWriter& w) {
        add_dense(w, pygolf::DType::kFloat16, Codec::kZstd);
        add_rows(w, 64, 5, Codec::kEntropy);
        add_factors(w, 9, 64, 8, Codec::kEntropy);
    }));
    return files;
}
#endif
