#include <algorithm>

#include "artifact_format.hpp"
#include "byte_cursor.hpp"
#include "crc32.hpp"

namespace pygolf {
namespace {

constexpr std::string_view kMagic = "GOLF";
constexpr std::uint16_t kVersion = 1;

void append_block(std::vector<std::byte>& bytes, const Block& block) {
    append_number(bytes, block.stored_bytes);
    append_number(bytes, block.plain_bytes);
    append_number(bytes, block.crc32);
}

Block take_block(Cursor& cursor) {
    Block block;
    block.stored_bytes = cursor.take<std::uint32_t>();
    block.plain_bytes = cursor.take<std::uint32_t>();
    block.crc32 = cursor.take<std::uint32_t>();
    return block;
}

void check_magic(std::span<const std::byte> file, const std::string& where) {
    const std::string_view start(reinterpret_cast<const char*>(file.data()),
                                 std::min(file.size(), kMagic.size()));
    if (start == kMagic) return;
    fail<FormatError>("[A2] ", where, ": does not begin with the four bytes '", kMagic, "' (file size ",
                      file.size(), "); is this a pygolf artifact? make one with 'pygolf quantize'");
}

void check_version(std::span<const std::byte> file, const std::string& where) {
    if (file.size() < kHeaderBytes) {
        fail<FormatError>("[A4] ", where, ": file size is ", file.size(), ", expected at least ",
                          kHeaderBytes, " (the header)", kDamaged);
    }
    const auto version = Cursor(file.subspan(kMagic.size()), where).take<std::uint16_t>();
    if (version > kVersion) {
        fail<VersionError>("[A3] ", where, ": format version is ", version, ", this build reads ", kVersion,
                           kNewer);
    }
    if (version < kVersion) {
        fail<FormatError>("[A3] ", where, ": format version is ", version, ", expected ", kVersion, kDamaged);
    }
}

void check_header_crc(std::span<const std::byte> header, const std::string& where) {
    const std::size_t covered = kHeaderBytes - sizeof(std::uint32_t);
    const auto expected = Cursor(header.subspan(covered), where).take<std::uint32_t>();
    if (const auto found = crc32(header.first(covered)); found != expected) {
        fail<ChecksumError>("[A4] ", where, ": CRC-32 of the header is ", found, ", expected ", expected,
                            kDamaged);
    }
}

void check_block(const Block& block, std::string_view name, const std::string& where) {
    if (block.plain_bytes <= kMaxBlockBytes) return;
    fail<FormatError>("[A7] ", where, ": ", name, " has ", block.plain_bytes, " bytes, expected at most ",
                      kMaxBlockBytes, "; make the artifact again");
}

void check_sizes(const Header& header, std::uint64_t found_bytes, const std::string& where) {
    if (header.file_bytes != found_bytes) {
        fail<FormatError>("[A6] ", where, ": file size is ", found_bytes, ", expected ", header.file_bytes,
                          kDamaged);
    }
    check_block(header.manifest, "manifest", where);
    check_block(header.table, "tensor table", where);
    const auto blocks = std::uint64_t{header.manifest.stored_bytes} + header.table.stored_bytes;
    if (blocks > found_bytes - kHeaderBytes) {
        fail<FormatError>("[A7] ", where, ": manifest and tensor table take ", blocks,
                          " bytes, expected at most ", found_bytes - kHeaderBytes,
                          " (the rest of the file); make the artifact again");
    }
}

}  // namespace

std::vector<std::byte> encode_header(const Header& header) {
    std::vector<std::byte> bytes;
    for (const char c : kMagic) append_number(bytes, c);
    append_number(bytes, kVersion);
    append_number(bytes, std::uint16_t{0});
    append_block(bytes, header.manifest);
    append_block(bytes, header.table);
    append_number(bytes, header.file_bytes);
    append_number(bytes, crc32(bytes));
    return bytes;
}

Header parse_header(std::span<const std::byte> file, const std::string& where) {
    check_magic(file, where);
    check_version(file, where);
    check_header_crc(file.first(kHeaderBytes), where);
    Cursor cursor(file.subspan(kMagic.size() + sizeof kVersion), where);
    if (const auto reserved = cursor.take<std::uint16_t>(); reserved != 0) {
        fail<FormatError>("[A5] ", where, ": reserved field is ", reserved,
                          ", expected 0; make the artifact again");
    }
    Header header;
    header.manifest = take_block(cursor);
    header.table = take_block(cursor);
    header.file_bytes = cursor.take<std::uint64_t>();
    check_sizes(header, file.size(), where);
    return header;
}

}  // namespace pygolf
