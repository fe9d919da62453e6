#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "artifact_format.hpp"
#include "byte_cursor.hpp"
#include "crc32.hpp"
#include "parallel.hpp"
#include "pygolf/artifact.hpp"
#include "pygolf/dequantize.hpp"
#include "pygolf/error.hpp"
#include "pygolf/float16.hpp"
#include "utf8.hpp"
#include "zstd.hpp"

namespace pygolf {
namespace {

void check_crc(std::span<const std::byte> stored, std::uint32_t expected, const std::string& where) {
    if (const std::uint32_t found = crc32(stored); found != expected) {
        fail<ChecksumError>("[A8] ", where, ": CRC-32 is ", found, ", expected ", expected, kDamaged);
    }
}

// Manifest or tensor table. Allocates what the header says, which rule A7 limits.
std::vector<std::byte> decode_block(std::span<const std::byte> stored, const Block& block,
                                    const std::string& where) {
    check_crc(stored, block.crc32, where);
    std::vector<std::byte> plain(block.plain_bytes);
    if (const auto problem = zstd_decompress(stored, plain)) {
        fail<FormatError>("[A9] ", where, ": ", *problem, ", expected ", plain.size(), " bytes", kDamaged);
    }
    return plain;
}

std::string decode_manifest(std::span<const std::byte> stored, const Block& block, const std::string& where) {
    const auto plain = decode_block(stored, block, where);
    std::string manifest(reinterpret_cast<const char*>(plain.data()), plain.size());
    if (!is_utf8(manifest)) fail<FormatError>("[A10] ", where, " is not UTF-8 text; make the artifact again");
    return manifest;
}

void widen(std::span<const std::byte> numbers, DType dtype, std::span<float> out) {
    if (dtype == DType::kFloat32) {
        std::memcpy(out.data(), numbers.data(), numbers.size());
        return;
    }
    for (std::size_t i = 0; i < out.size(); ++i) {
        std::uint16_t half = 0;
        std::memcpy(&half, &numbers[i * sizeof half], sizeof half);
        out[i] =
            dtype == DType::kFloat16 ? from_float16(half) : std::bit_cast<float>(std::uint32_t{half} << 16);
    }
}

}  // namespace

ArtifactReader ArtifactReader::open(const std::filesystem::path& path) {
    auto file = MappedFile::open(path, "A1");
    const std::string where = path.string();
    const auto bytes = file.bytes();
    const Header header = parse_header(bytes, where);
    const auto blocks = bytes.subspan(kHeaderBytes);
    const auto manifest = blocks.first(header.manifest.stored_bytes);
    const auto table = blocks.subspan(header.manifest.stored_bytes, header.table.stored_bytes);
    const std::uint64_t sections = kHeaderBytes + manifest.size() + table.size();
    auto text = decode_manifest(manifest, header.manifest, where + ": manifest");
    auto tensors = parse_table(decode_block(table, header.table, where + ": tensor table"), sections,
                               bytes.size(), where);
    return ArtifactReader(std::move(file), std::move(text), std::move(tensors));
}

ArtifactReader::ArtifactReader(MappedFile file, std::string manifest, std::vector<TensorInfo> tensors)
    : file_(std::move(file)), manifest_(std::move(manifest)), tensors_(std::move(tensors)) {
    for (std::size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
}

const TensorInfo& ArtifactReader::find(std::string_view name) const {
    const auto entry = index_.find(name);
    if (entry == index_.end()) {
        fail<ArgumentError>(path().string(), ": no tensor '", name, "' among its ", tensors_.size(),
                            "; 'pygolf inspect' lists them");
    }
    return tensors_[entry->second];
}

const SectionInfo& ArtifactReader::section(const TensorInfo& tensor, Role role) const {
    const auto found = std::ranges::find(tensor.sections, role, &SectionInfo::role);
    if (found == tensor.sections.end()) {
        fail<ArgumentError>(path().string(), ": tensor '", tensor.name, "' has encoding '",
                            encoding_name(tensor.encoding), "' and no section '", role_name(role),
                            "'; dequantize() reads every encoding");
    }
    return *found;
}

std::span<const std::byte> ArtifactReader::stored(const TensorInfo& tensor,
                                                  const SectionInfo& section) const {
    const auto bytes = file_.bytes().subspan(section.offset, section.stored_bytes);
    check_crc(bytes, section.crc32, section_context(tensor, section.role, path().string()).where);
    return bytes;
}

void ArtifactReader::read(std::string_view name, Role role, std::span<std::byte> out) const {
    const TensorInfo& tensor = find(name);
    const SectionInfo& part = section(tensor, role);
    LineLogs logs;
    if (role == Role::kCodes) logs = line_logs(tensor, [&](Role other) { return plain(tensor, other); });
    const auto context = section_context(tensor, role, path().string(), logs);
    if (out.size() != context.plain_bytes) {
        fail<ArgumentError>(context.where, ": buffer has ", out.size(), " bytes, expected ",
                            context.plain_bytes);
    }
    decode_section(part.codec, stored(tensor, part), context, out);
}

std::vector<std::byte> ArtifactReader::plain(const TensorInfo& tensor, Role role) const {
    std::vector<std::byte> bytes(section_context(tensor, role, "").plain_bytes);
    read(tensor.name, role, bytes);
    return bytes;
}

void ArtifactReader::codes(std::string_view name, std::span<std::int8_t> out_RC) const {
    read(name, Role::kCodes, std::as_writable_bytes(out_RC));
}

void ArtifactReader::codes(std::string_view name, std::span<std::int16_t> out_RC) const {
    read(name, Role::kCodes, std::as_writable_bytes(out_RC));
}

std::vector<std::int16_t> ArtifactReader::logs(std::string_view name, Role role) const {
    const TensorInfo& tensor = find(name);
    (void)section(tensor, role);
    LineLogs logs = line_logs(tensor, [&](Role other) { return plain(tensor, other); });
    return role == Role::kColFactors ? std::move(logs.cols) : std::move(logs.rows);
}

void ArtifactReader::scales(std::string_view name, std::span<std::uint16_t> out_R) const {
    read(name, Role::kScales, std::as_writable_bytes(out_R));
}

void ArtifactReader::dequantize(std::string_view name, std::span<float> out) const {
    const TensorInfo& tensor = find(name);
    if (out.size() != tensor.elements()) {
        fail<ArgumentError>(path().string(), ": tensor '", name, "': buffer has ", out.size(),
                            " elements, expected ", tensor.elements());
    }
    if (tensor.encoding == Encoding::kDense) {
        std::vector<std::byte> numbers(tensor.elements() * dtype_bytes(tensor.dtype));
        read(name, Role::kData, numbers);
        return widen(numbers, tensor.dtype, out);
    }
    if (tensor.encoding == Encoding::kFactors) {
        std::vector<std::int16_t> codes_RC(tensor.elements());
        codes(name, codes_RC);
        const LineLogs logs = line_logs(tensor, [&](Role role) { return plain(tensor, role); });
        return dequantize_factors(codes_RC, {tensor.states, tensor.step, logs.rows, logs.cols}, out);
    }
    std::vector<std::int8_t> codes_RC(tensor.elements());
    std::vector<std::uint16_t> scales_R(tensor.shape[0]);
    codes(name, codes_RC);
    scales(name, scales_R);
    dequantize_rows(codes_RC, scales_R, out);
}

std::optional<std::span<const std::byte>> ArtifactReader::raw(std::string_view name, Role role) const {
    const TensorInfo& tensor = find(name);
    const SectionInfo& part = section(tensor, role);
    if (part.codec != Codec::kRaw) return std::nullopt;
    const auto plain = stored(tensor, part);
    check_plain(plain, section_context(tensor, role, path().string()));
    return plain;
}

void ArtifactReader::check(int threads) const {
    parallel_for(tensors_.size(), threads, [this](std::size_t i) {
        const TensorInfo& tensor = tensors_[i];
        for (const SectionInfo& part : tensor.sections) (void)plain(tensor, part.role);
    });
}

}  // namespace pygolf
