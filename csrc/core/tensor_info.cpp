#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <ranges>

#include "artifact_format.hpp"
#include "pygolf/bitpack.hpp"
#include "pygolf/error.hpp"
#include "utf8.hpp"

namespace pygolf {
namespace {

constexpr std::array<std::string_view, 2> kEncodingNames = {"dense", "rows"};
constexpr std::array<std::string_view, 3> kDTypeNames = {"float32", "float16", "bfloat16"};
constexpr std::array<std::string_view, 3> kRoleNames = {"data", "scales", "codes"};

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
    const bool is_rows = tensor.encoding == Encoding::kRows;
    if (is_rows ? dimensions != 2 : (dimensions < 1 || dimensions > 4)) {
        return Problem{"A13",
                       message("shape has ", dimensions, " dimensions, expected ", is_rows ? "2" : "1 to 4")};
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
    return std::nullopt;
}

std::span<const Role> roles_of(Encoding encoding) {
    static constexpr std::array kDenseRoles = {Role::kData};
    static constexpr std::array kRowsRoles = {Role::kScales, Role::kCodes};
    if (encoding == Encoding::kDense) return kDenseRoles;
    return kRowsRoles;
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
        if (section.role == Role::kCodes ? codec.for_codes : codec.for_others) continue;
        return Problem{"A15", message("section ", role_name(section.role), " has codec '", codec.name,
                                      "', which is not for ", role_name(section.role))};
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
    for (const auto& check : {name_problem, shape_problem, number_problem, section_problem}) {
        if (auto problem = check(tensor)) return problem;
    }
    return std::nullopt;
}

SectionContext section_context(const TensorInfo& tensor, Role role, const std::string& where,
                               std::span<const std::uint16_t> scales) {
    SectionContext context;
    context.where = message(where, ": tensor '", tensor.name, "', section ", role_name(role));
    if (role == Role::kData) {
        context.element_bytes = dtype_bytes(tensor.dtype);
        context.plain_bytes = tensor.elements() * context.element_bytes;
        return context;
    }
    context.rows = tensor.shape[0];
    if (role == Role::kScales) {
        context.content = Content::kScales;
        context.element_bytes = sizeof(std::uint16_t);
        context.plain_bytes = context.rows * context.element_bytes;
        return context;
    }
    context.content = Content::kCodes;
    context.plain_bytes = tensor.elements();
    context.cols = tensor.shape[1];
    context.bits = tensor.bits;
    context.scales = scales;
    return context;
}

}  // namespace pygolf
