#include <set>

#include "artifact_format.hpp"
#include "byte_cursor.hpp"
#include "utf8.hpp"

namespace pygolf {
namespace {

// The byte behind the encoding.
std::uint8_t parameter_of(const TensorInfo& tensor) {
    if (tensor.encoding == Encoding::kDense) return static_cast<std::uint8_t>(tensor.dtype);
    return static_cast<std::uint8_t>(tensor.encoding == Encoding::kRows ? tensor.bits : tensor.states);
}

void append_tensor(std::vector<std::byte>& bytes, const TensorInfo& tensor) {
    append_number(bytes, tensor.encoding);
    append_number(bytes, parameter_of(tensor));
    append_number(bytes, static_cast<std::uint8_t>(tensor.name.size()));
    for (const char c : tensor.name) append_number(bytes, c);
    append_number(bytes, static_cast<std::uint8_t>(tensor.shape.size()));
    for (const std::uint32_t size : tensor.shape) append_number(bytes, size);
    if (tensor.encoding == Encoding::kFactors) {
        append_number(bytes, tensor.step);
        append_number(bytes, tensor.row_offset);
        append_number(bytes, tensor.col_offset);
    }
    append_number(bytes, static_cast<std::uint8_t>(tensor.sections.size()));
    for (const SectionInfo& section : tensor.sections) {
        append_number(bytes, section.role);
        append_number(bytes, section.codec);
        append_number(bytes, section.crc32);
        append_number(bytes, section.stored_bytes);
    }
}

SectionInfo take_section(Cursor& cursor, const std::string& where) {
    SectionInfo section;
    section.role = cursor.take<Role>();
    const auto codec = cursor.take<std::uint8_t>();
    if (!find_codec(codec)) {
        fail<VersionError>("[A15] ", where, ": codec id is ", int{codec}, ", this build knows 0 to ",
                           codecs().size() - 1, kNewer);
    }
    section.codec = Codec{codec};
    section.crc32 = cursor.take<std::uint32_t>();
    section.stored_bytes = cursor.take<std::uint64_t>();
    return section;
}

// One record. Ids that decide how the rest is understood are checked first, then the description as a whole.
TensorInfo take_tensor(Cursor& cursor, const std::string& file) {
    TensorInfo tensor;
    const auto encoding = cursor.take<std::uint8_t>();
    const auto parameter = cursor.take<std::uint8_t>();
    const auto name = cursor.take_bytes(cursor.take<std::uint8_t>());
    tensor.name.assign(reinterpret_cast<const char*>(name.data()), name.size());
    const std::string where =
        message(file, ": tensor '", is_plain_text(tensor.name) ? tensor.name : "?", "'");
    if (encoding > static_cast<std::uint8_t>(Encoding::kFactors)) {
        fail<VersionError>("[A14] ", where, ": encoding id is ", int{encoding}, ", this build knows 0 to 2",
                           kNewer);
    }
    tensor.encoding = Encoding{encoding};
    if (tensor.encoding == Encoding::kDense) tensor.dtype = DType{parameter};
    if (tensor.encoding == Encoding::kRows) tensor.bits = parameter;
    if (tensor.encoding == Encoding::kFactors) tensor.states = parameter;
    tensor.shape.resize(cursor.take<std::uint8_t>());
    for (std::uint32_t& size : tensor.shape) size = cursor.take<std::uint32_t>();
    if (tensor.encoding == Encoding::kFactors) {
        tensor.step = cursor.take<float>();
        tensor.row_offset = cursor.take<std::int16_t>();
        tensor.col_offset = cursor.take<std::int16_t>();
    }
    tensor.sections.resize(cursor.take<std::uint8_t>());
    for (SectionInfo& section : tensor.sections) section = take_section(cursor, where);
    if (const auto problem = tensor_problem(tensor)) {
        fail<FormatError>("[", problem->rule, "] ", where, ": ", problem->text, "; make the artifact again");
    }
    return tensor;
}

// Gives every section its place, behind the one before, and checks that it fits into the file.
std::uint64_t place_sections(TensorInfo& tensor, std::uint64_t offset, std::uint64_t file_bytes,
                             const std::string& where) {
    for (SectionInfo& section : tensor.sections) {
        const SectionContext context = section_context(tensor, section.role, where);
        if (section.stored_bytes > file_bytes - offset) {
            fail<FormatError>("[A17] ", context.where, ": ", section.stored_bytes,
                              " stored bytes, expected at most ", file_bytes - offset,
                              " (the rest of the file)", kDamaged);
        }
        check_stored_size(section.codec, section.stored_bytes, context);
        section.offset = offset;
        offset += section.stored_bytes;
    }
    return offset;
}

}  // namespace

std::vector<std::byte> encode_table(std::span<const TensorInfo> tensors) {
    std::vector<std::byte> bytes;
    append_number(bytes, static_cast<std::uint32_t>(tensors.size()));
    for (const TensorInfo& tensor : tensors) append_tensor(bytes, tensor);
    return bytes;
}

std::vector<TensorInfo> parse_table(std::span<const std::byte> table, std::uint64_t offset,
                                    std::uint64_t file_bytes, const std::string& where) {
    Cursor cursor(table, where);
    std::vector<TensorInfo> tensors;  // grows with the records that are there, not with what the count claims
    std::set<std::string_view> names;
    for (auto left = cursor.take<std::uint32_t>(); left > 0; --left) {
        tensors.push_back(take_tensor(cursor, where));
        offset = place_sections(tensors.back(), offset, file_bytes, where);
    }
    for (const TensorInfo& tensor : tensors) {
        if (!names.insert(tensor.name).second) {
            fail<FormatError>("[A12] ", where, ": tensor '", tensor.name,
                              "' is there twice; make the artifact again");
        }
    }
    if (cursor.left() != 0) {
        fail<FormatError>("[A11] ", where, ": tensor table has ", cursor.left(),
                          " bytes after its last record", kDamaged);
    }
    if (offset != file_bytes) {
        fail<FormatError>("[A17] ", where, ": sections end at byte ", offset, ", expected ", file_bytes,
                          " (the file's end)", kDamaged);
    }
    return tensors;
}

}  // namespace pygolf
