#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <numeric>
#include <ranges>
#include <tuple>

#include "artifact_format.hpp"
#include "pygolf/bitpack.hpp"
#include "pygolf/error.hpp"
#include "pygolf/trellis.hpp"
#include "utf8.hpp"

namespace pygolf {
namespace {

constexpr std::array<std::string_view, 3> kEncodingNames = {"dense", "rows", "factors"};
constexpr std::array<std::string_view, 3> kDTypeNames = {"float32", "float16", "bfloat16"};
constexpr std::array<std::string_view, 5> kRoleNames = {"data", "scales", "codes", "row factors",
                                                        "column factors"};
constexpr int kMaxOffset = kMaxLog - kMaxLogSpan;

std::optional<Problem> name_problem(const TensorInfo& tensor) {
    const std::string& name = tensor.name;
    if (name.empty() || name.size() > kMaxNameBytes) {
        return Problem{"A12", message("name has ", name.size(), " bytes, expected 1 to ", kMaxNameBytes)};
    }
    if (!is_plain_text(name)) {
        return Problem{"A12", "name is not UTF-8 text without control characters"};
    }
    return std::nullopt;
}

std::optional<Problem> shape_problem(const TensorInfo& tensor) {
    const std::size_t dimensions = tensor.shape.size();
    const bool is_dense = tensor.encoding == Encoding::kDense;
    if (is_dense ? dimensions < 1 || dimensions > 4 : dimensions != 2) {
        return Problem{
            "A13", message("shape has ", dimensions, " dimensions, expected ", is_dense ? "1 to 4" : "2")};
    }
    std::uint64_t elements = 1;  // at most 2^31 - 1 before each product with a 32-bit number: no overflow
    for (const std::uint32_t size : tensor.shape) {
        elements *= size;
        if (elements == 0 || elements > kMaxElements) {
            return Problem{"A13", message("shape has dimension ", size, ", expected 1 or more and at most ",
                                          kMaxElements, " elements in all")};
        }
    }
    return std::nullopt;
}

std::optional<Problem> number_problem(const TensorInfo& tensor) {
    const int dtype = static_cast<int>(tensor.dtype);
    if (tensor.encoding == Encoding::kDense && dtype > static_cast<int>(DType::kBFloat16)) {
        return Problem{"A14", message("dtype id is ", dtype, ", expected 0 to 2")};
    }
    if (tensor.encoding == Encoding::kRows && (tensor.bits < kMinBits || tensor.bits > kMaxBits)) {
        return Problem{"A14", message("bits is ", tensor.bits, ", expected ", kMinBits, " to ", kMaxBits)};
    }
    if (tensor.encoding == Encoding::kFactors && !is_trellis_states(tensor.states)) {
        return Problem{"A14", message("trellis has ", tensor.states, " states, expected 1, 4 or 8")};
    }
    return std::nullopt;
}

std::optional<Problem> grid_problem(const TensorInfo& tensor) {
    if (tensor.encoding != Encoding::kFactors) return std::nullopt;
    if (!(tensor.step >= kMinStep && tensor.step < kMaxStep)) {  // NaN neither
        return Problem{"A20", message("step is ", tensor.step, ", expected ", kMinStep,
                                      " or more and less than ", kMaxStep)};
    }
    for (const std::int16_t offset : {tensor.row_offset, tensor.col_offset}) {
        if (offset >= kMinLog && offset <= kMaxOffset) continue;
        return Problem{"A20",
                       message("offset of factors is ", offset, ", expected ", kMinLog, " to ", kMaxOffset)};
    }
    return std::nullopt;
}

std::span<const Role> roles_of(Encoding encoding) {
    static constexpr std::array kDenseRoles = {Role::kData};
    static constexpr std::array kRowsRoles = {Role::kScales, Role::kCodes};
    static constexpr std::array kFactorsRoles = {Role::kRowFactors, Role::kColFactors, Role::kCodes};
    if (encoding == Encoding::kDense) return kDenseRoles;
    if (encoding == Encoding::kRows) return kRowsRoles;
    return kFactorsRoles;
}

// Role ids as text: " 1 2", or " none".
std::string ids(std::ranges::input_range auto&& roles) {
    std::string text;
    for (const Role role : roles) text += message(" ", int{static_cast<std::uint8_t>(role)});
    return text.empty() ? " none" : text;
}

std::optional<Problem> section_problem(const TensorInfo& tensor) {
    const auto roles = roles_of(tensor.encoding);
    if (!std::ranges::equal(tensor.sections, roles, {}, &SectionInfo::role)) {
        return Problem{"A16",
                       message("sections have the roles",
                               ids(tensor.sections | std::views::transform(&SectionInfo::role)), ", expected",
                               ids(roles), " for encoding '", encoding_name(tensor.encoding), "'")};
    }
    for (const SectionInfo& section : tensor.sections) {
        const CodecInfo& codec = codec_info(section.codec);
        if (codec.holds(content_of(tensor, section.role))) continue;
        return Problem{"A15", message("section ", role_name(section.role), " has codec '", codec.name,
                                      "', which is not for ", role_name(section.role), " of encoding '",
                                      encoding_name(tensor.encoding), "'")};
    }
    return std::nullopt;
}

}  // namespace

std::string_view encoding_name(Encoding encoding) {
    return kEncodingNames.at(static_cast<std::size_t>(encoding));
}

std::string_view dtype_name(DType dtype) { return kDTypeNames.at(static_cast<std::size_t>(dtype)); }

std::string_view role_name(Role role) { return kRoleNames.at(static_cast<std::size_t>(role)); }

std::size_t dtype_bytes(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

DType dtype_from_name(std::string_view name) {
    const auto found = std::ranges::find(kDTypeNames, name);
    if (found == kDTypeNames.end()) {
        fail<ArgumentError>("dtype is '", name, "', expected 'float32', 'float16' or 'bfloat16'");
    }
    return static_cast<DType>(found - kDTypeNames.begin());
}

std::size_t TensorInfo::elements() const {
    return std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>());
}

std::uint64_t TensorInfo::stored_bytes() const {
    std::uint64_t sum = 0;
    for (const SectionInfo& section : sections) sum += section.stored_bytes;
    return sum;
}

std::optional<Problem> tensor_problem(const TensorInfo& tensor) {
    for (const auto& check : {name_problem, shape_problem, number_problem, grid_problem, section_problem}) {
        if (auto problem = check(tensor)) return problem;
    }
    return std::nullopt;
}

Content content_of(const TensorInfo& tensor, Role role) {
    if (role == Role::kData) return Content::kValues;
    if (role == Role::kScales) return Content::kScales;
    if (role != Role::kCodes) return Content::kFactors;
    return tensor.encoding == Encoding::kRows ? Content::kCodes : Content::kWideCodes;
}

LineLogs line_logs(const TensorInfo& tensor, const PlainBytes& plain) {
    LineLogs logs;
    if (tensor.encoding == Encoding::kRows) {
        // fp16 bits are about a logarithm: 16 steps an octave when the lowest six go.
        const auto bytes = plain(Role::kScales);
        std::vector<std::uint16_t> scales(tensor.shape[0]);
        std::memcpy(scales.data(), bytes.data(), bytes.size());
        for (const std::uint16_t scale : scales) logs.rows.push_back(static_cast<std::int16_t>(scale >> 6));
        return logs;
    }
    for (const auto& [role, offset, lines] : {std::tuple(Role::kRowFactors, tensor.row_offset, &logs.rows),
                                              std::tuple(Role::kColFactors, tensor.col_offset, &logs.cols)}) {
        for (const std::byte factor : plain(role))
            lines->push_back(static_cast<std::int16_t>(offset + std::to_integer<int>(factor)));
    }
    return logs;
}

SectionContext section_context(const TensorInfo& tensor, Role role, const std::string& where,
                               const LineLogs& logs) {
    SectionContext context;
    context.where = message(where, ": tensor '", tensor.name, "', section ", role_name(role));
    context.content = content_of(tensor, role);
    switch (context.content) {
        case Content::kValues:
            context.element_bytes = dtype_bytes(tensor.dtype);
            context.plain_bytes = tensor.elements() * context.element_bytes;
            return context;
        case Content::kScales:
        case Content::kFactors:
            context.rows = 1;
            context.cols = tensor.shape[role == Role::kColFactors ? 1 : 0];
            break;
        case Content::kCodes:
        case Content::kWideCodes:
            context.rows = tensor.shape[0];
            context.cols = tensor.shape[1];
            context.bits = tensor.bits;
            context.side = {logs.rows, logs.cols, tensor.states};
            break;
    }
    const bool is_byte = context.content == Content::kCodes || context.content == Content::kFactors;
    context.element_bytes = is_byte ? 1 : 2;
    context.plain_bytes = context.rows * context.cols * context.element_bytes;
    return context;
}

}  // namespace pygolf
