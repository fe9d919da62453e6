#include "torch_ops_support.hpp"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>

#include "pygolf/bitpack.hpp"

namespace pygolf {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Tensor checked(const Tensor& tensor, const char* name, ScalarType dtype, std::int64_t dim) {
    if (tensor.scalar_type() != dtype) {
        fail<ArgumentError>(name, " has dtype ", torch::headeronly::toString(tensor.scalar_type()),
                            ", expected ", torch::headeronly::toString(dtype), "; convert it first");
    }
    if (dim >= 0 && tensor.dim() != dim) {
        fail<ArgumentError>(name, " has ", tensor.dim(), " dimensions, expected ", dim, "; reshape it first");
    }
    return torch::stable::contiguous(tensor);
}

void check_shape(const Tensor& tensor, const char* name, std::initializer_list<std::int64_t> expected) {
    const auto text = [](const auto& sizes) {
        std::string joined;
        for (const std::int64_t size : sizes) joined += (joined.empty() ? "" : ", ") + std::to_string(size);
        return "[" + joined + "]";
    };
    if (!std::ranges::equal(tensor.sizes(), expected)) {
        fail<ArgumentError>(name, " has shape ", text(tensor.sizes()), ", expected ", text(expected),
                            "; pass tensors that belong together");
    }
}

int checked_int(std::int64_t value, const char* name) {
    if (value < std::numeric_limits<int>::min() || value > std::numeric_limits<int>::max()) {
        fail<ArgumentError>(name, " is ", value, ", expected a small number");
    }
    return static_cast<int>(value);
}

Tensor checked_packed(const Tensor& packed, std::int64_t bits, std::int64_t count) {
    const Tensor bytes = checked(packed, "packed", ScalarType::Byte, 1);
    if (count < 0) fail<ArgumentError>("count is ", count, ", expected the number of codes that were packed");
    const std::size_t size = packed_bytes(static_cast<std::size_t>(count), checked_int(bits, "bits"));
    check_shape(bytes, "packed", {static_cast<std::int64_t>(size)});
    return bytes;
}

std::tuple<Tensor, Tensor> checked_rows(const Tensor& codes, const Tensor& scales) {
    const Tensor codes_RC = checked(codes, "codes", ScalarType::Char, 2);
    const Tensor scales_R = checked(scales, "scales", ScalarType::Half, 1);
    check_shape(scales_R, "scales", {codes_RC.size(0)});
    if (codes.is_cuda() != scales.is_cuda() || codes.get_device_index() != scales.get_device_index()) {
        fail<ArgumentError>("codes and scales are on different devices; move both to one");
    }
    return {codes_RC, scales_R};
}

Tensor empty_beside(const Tensor& beside, ScalarType dtype, std::initializer_list<std::int64_t> sizes) {
    return torch::stable::new_empty(beside, {sizes.begin(), sizes.size()}, dtype);
}

}  // namespace pygolf
