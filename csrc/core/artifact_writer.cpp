#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>

#include "artifact_format.hpp"
#include "atomic_file.hpp"
#include "crc32.hpp"
#include "parallel.hpp"
#include "pygolf/artifact.hpp"
#include "pygolf/error.hpp"
#include "utf8.hpp"
#include "zstd.hpp"

namespace pygolf {
namespace {

// One zstd frame and what the header says about it.
struct EncodedBlock {
    Block info;
    std::vector<std::byte> stored;
};

EncodedBlock encode_block(std::span<const std::byte> plain, std::string_view name, int zstd_level) {
    if (plain.size() > kMaxBlockBytes) {
        fail<ArgumentError>(name, " has ", plain.size(), " bytes, expected at most ", kMaxBlockBytes);
    }
    EncodedBlock block;
    block.stored = zstd_compress(plain, zstd_level);
    block.info.stored_bytes = static_cast<std::uint32_t>(block.stored.size());
    block.info.plain_bytes = static_cast<std::uint32_t>(plain.size());
    block.info.crc32 = crc32(block.stored);
    return block;
}

void append(std::vector<std::byte>& bytes, std::span<const std::byte> more) {
    bytes.insert(bytes.end(), more.begin(), more.end());
}

// What the factors of one direction lie above: their lowest logarithm, or less for very high ones.
std::int16_t offset_of(std::span<const std::int16_t> logs, std::string_view lines, const std::string& name) {
    if (logs.empty()) return 0;
    const auto [low, high] = std::ranges::minmax(logs);
    if (low < kMinLog || high > kMaxLog || high - low > kMaxLogSpan) {
        fail<ArgumentError>("tensor '", name, "': ", lines, " logarithms are ", low, " to ", high,
                            ", expected ", kMinLog, " to ", kMaxLog, " and at most ", kMaxLogSpan,
                            " apart; clamp them before quantizing");
    }
    return std::min(low, static_cast<std::int16_t>(kMaxLog - kMaxLogSpan));
}

std::vector<std::byte> without_offset(std::span<const std::int16_t> logs, int offset) {
    std::vector<std::byte> factors(logs.size());
    std::ranges::transform(logs, factors.begin(),
                           [&](int log) { return static_cast<std::byte>(log - offset); });
    return factors;
}

void check_content(std::span<const std::byte> plain, const SectionContext& context) {
    if (plain.size() != context.plain_bytes) {
        fail<ArgumentError>(context.where, ": got ", plain.size(), " bytes, expected ", context.plain_bytes,
                            " for its shape");
    }
    const auto problem = plain_problem(plain, context);
    if (problem) fail<ArgumentError>(context.where, ": ", problem->text);
}

}  // namespace

struct ArtifactWriter::Encoded {
    SectionInfo info;
    std::vector<std::byte> bytes;
};

ArtifactWriter::ArtifactWriter(std::string manifest, int zstd_level)
    : manifest_(std::move(manifest)), zstd_level_(zstd_level) {
    if (!is_utf8(manifest_)) fail<ArgumentError>("manifest is not UTF-8, expected JSON text in UTF-8");
    if (zstd_level < kMinZstdLevel || zstd_level > kMaxZstdLevel) {
        fail<ArgumentError>("zstd level is ", zstd_level, ", expected ", kMinZstdLevel, " to ",
                            kMaxZstdLevel);
    }
}

// The same checks as the reader's, so that nothing is written that cannot be read.
void ArtifactWriter::add(Tensor tensor) {
    TensorInfo& info = tensor.info;
    for (const Section& section : tensor.sections) {
        info.sections.push_back({.role = section.role, .codec = section.codec});
    }
    const auto problem = tensor_problem(info);
    if (problem) fail<ArgumentError>("tensor '", info.name, "': ", problem->text);
    if (std::ranges::any_of(tensors_, [&](const Tensor& other) { return other.info.name == info.name; })) {
        fail<ArgumentError>("tensor '", info.name, "' was added before; names must be unique");
    }
    for (const Section& section : tensor.sections) {
        check_content(section.plain, section_context(info, section.role, "new artifact"));
    }
    tensors_.push_back(std::move(tensor));
}

void ArtifactWriter::add_dense(std::string name, DType dtype, std::vector<std::uint32_t> shape,
                               std::span<const std::byte> data, Codec codec) {
    Tensor tensor;
    tensor.info.name = std::move(name);
    tensor.info.shape = std::move(shape);
    tensor.info.encoding = Encoding::kDense;
    tensor.info.dtype = dtype;
    tensor.sections.push_back({Role::kData, codec, {data.begin(), data.end()}});
    add(std::move(tensor));
}

void ArtifactWriter::add_rows(std::string name, std::uint32_t rows, std::uint32_t cols,
                              std::span<const std::int8_t> codes_RC, std::span<const std::uint16_t> scales_R,
                              int bits, Codec codec) {
    const auto codes = std::as_bytes(codes_RC);
    const auto scales = std::as_bytes(scales_R);
    Tensor tensor;
    tensor.info.name = std::move(name);
    tensor.info.shape = {rows, cols};
    tensor.info.encoding = Encoding::kRows;
    tensor.info.bits = bits;
    tensor.sections.push_back({Role::kScales, codec_info(codec).side_codec, {scales.begin(), scales.end()}});
    tensor.sections.push_back({Role::kCodes, codec, {codes.begin(), codes.end()}});
    add(std::move(tensor));
}

void ArtifactWriter::add_factors(std::string name, std::span<const std::int16_t> codes_RC,
                                 const FactorGrid& grid, Codec codec) {
    const auto codes = std::as_bytes(codes_RC);
    Tensor tensor;
    TensorInfo& info = tensor.info;
    info.name = std::move(name);
    info.shape = {static_cast<std::uint32_t>(grid.row_logs_R.size()),
                  static_cast<std::uint32_t>(grid.col_logs_C.size())};
    info.encoding = Encoding::kFactors;
    info.states = grid.states;
    info.step = grid.step;
    info.row_offset = offset_of(grid.row_logs_R, "row", info.name);
    info.col_offset = offset_of(grid.col_logs_C, "column", info.name);
    const Codec side = codec_info(codec).side_codec;
    tensor.sections.push_back({Role::kRowFactors, side, without_offset(grid.row_logs_R, info.row_offset)});
    tensor.sections.push_back({Role::kColFactors, side, without_offset(grid.col_logs_C, info.col_offset)});
    tensor.sections.push_back({Role::kCodes, codec, {codes.begin(), codes.end()}});
    add(std::move(tensor));
}

// A section where it becomes smaller by its codec, and raw where it does not.
ArtifactWriter::Encoded ArtifactWriter::encode(const Tensor& tensor, const Section& section,
                                               int threads) const {
    LineLogs logs;
    if (section.role == Role::kCodes) {
        logs = line_logs(tensor.info, [&](Role role) {
            return std::ranges::find(tensor.sections, role, &Section::role)->plain;
        });
    }
    auto context = section_context(tensor.info, section.role, "new artifact", logs);
    context.threads = threads;
    Encoded encoded;
    encoded.info.role = section.role;
    encoded.info.codec = section.codec;
    encoded.bytes = codec_info(section.codec).encode(section.plain, context, zstd_level_);
    if (encoded.bytes.size() > section.plain.size()) {
        encoded.info.codec = Codec::kRaw;
        encoded.bytes = section.plain;
    }
    encoded.info.stored_bytes = encoded.bytes.size();
    encoded.info.crc32 = crc32(encoded.bytes);
    return encoded;
}

std::vector<std::byte> ArtifactWriter::serialize(int threads) const {
    std::vector<std::pair<const Tensor*, const Section*>> sections;  // in file order
    for (const Tensor& tensor : tensors_) {
        for (const Section& section : tensor.sections) sections.emplace_back(&tensor, &section);
    }
    // Large sections go first, so that no thread is left with a long one at the end.
    std::vector<std::size_t> largest_first(sections.size());
    std::iota(largest_first.begin(), largest_first.end(), std::size_t{0});
    std::ranges::sort(largest_first, std::greater{},
                      [&](std::size_t i) { return sections[i].second->plain.size(); });
    std::vector<Encoded> encoded(sections.size());
    parallel_for(sections.size(), threads, [&](std::size_t task) {
        const std::size_t i = largest_first[task];
        encoded[i] = encode(*sections[i].first, *sections[i].second, 1);
    });
    return assemble(encoded);
}

std::uint64_t ArtifactWriter::section_bytes(int threads) const {
    std::uint64_t sum = 0;
    for (const Tensor& tensor : tensors_) {
        for (const Section& section : tensor.sections) sum += encode(tensor, section, threads).bytes.size();
    }
    return sum;
}

// Joins the encoded sections, in file order, behind the header, manifest and table that describe them.
std::vector<std::byte> ArtifactWriter::assemble(std::span<const Encoded> sections) const {
    std::vector<TensorInfo> infos;
    auto next = sections.begin();
    for (const Tensor& tensor : tensors_) {
        infos.push_back(tensor.info);
        for (SectionInfo& info : infos.back().sections) info = (next++)->info;
    }
    const auto manifest = encode_block(std::as_bytes(std::span(manifest_)), "manifest", zstd_level_);
    const auto table = encode_block(encode_table(infos), "tensor table", zstd_level_);
    std::vector<std::byte> body = manifest.stored;
    append(body, table.stored);
    for (const Encoded& section : sections) append(body, section.bytes);
    auto file = encode_header({manifest.info, table.info, kHeaderBytes + body.size()});
    append(file, body);
    return file;
}

std::uint64_t coded_bytes(std::span<const std::int16_t> codes_RC, const FactorGrid& grid, int threads) {
    ArtifactWriter writer("");
    writer.add_factors("codes", codes_RC, grid);
    return writer.section_bytes(threads);
}

std::uint64_t ArtifactWriter::write(const std::filesystem::path& path, int threads) const {
    const auto bytes = serialize(threads);
    write_file_atomically(path, bytes);
    return bytes.size();
}

}  // namespace pygolf
