// CUDA kernels of the torch operators (see torch_ops.cpp). Empty in a build without a CUDA compiler.
#ifdef PYGOLF_WITH_CUDA

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include "row_codes.hpp"
#include "torch_ops_cuda_support.hpp"

namespace pygolf {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using torch::stable::accelerator::DeviceGuard;

Tensor unpack_cuda(Tensor packed, std::int64_t bits, std::int64_t count) {
    return with_typed_errors([&] {
        const DeviceGuard guard(packed.get_device_index());
        const Tensor bytes = checked_packed(packed, bits, count);
        const Tensor codes = empty_beside(packed, ScalarType::Char, {count});
        cuda::launch_unpack({.packed = static_cast<const std::uint8_t*>(bytes.const_data_ptr()),
                             .codes = static_cast<std::int8_t*>(codes.mutable_data_ptr()),
                             .count = count,
                             .bits = static_cast<int>(bits)},
                            current_stream(packed));
        return codes;
    });
}

Tensor dequantize_cuda(Tensor codes, Tensor scales) {
    return with_typed_errors([&] {
        const DeviceGuard guard(codes.get_device_index());
        const auto [codes_RC, scales_R] = checked_rows(codes, scales);
        const Tensor values_RC = empty_beside(codes, ScalarType::Float, {codes_RC.size(0), codes_RC.size(1)});
        cuda::launch_dequantize({.codes_RC = static_cast<const std::int8_t*>(codes_RC.const_data_ptr()),
                                 .scales_R = static_cast<const std::uint16_t*>(scales_R.const_data_ptr()),
                                 .values_RC = static_cast<float*>(values_RC.mutable_data_ptr()),
                                 .rows = codes_RC.size(0),
                                 .columns = codes_RC.size(1)},
                                current_stream(codes));
        return values_RC;
    });
}

}  // namespace
}  // namespace pygolf

STABLE_TORCH_LIBRARY_IMPL(pygolf, CUDA, library) {
    library.impl("unpack", TORCH_BOX(&pygolf::unpack_cuda));
    library.impl("dequantize", TORCH_BOX(&pygolf::dequantize_cuda));
}

#endif  // PYGOLF_WITH_CUDA
