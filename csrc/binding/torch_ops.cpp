// The torch operators pygolf::* and their CPU kernels, through LibTorch's stable ABI: one binary for every
// torch from 2.10 on. pygolf/ops.py is the only caller and documents them; torch_ops_cuda.cpp has the CUDA
// kernels.
//
// Legend: R rows, C columns, K candidates.
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "pygolf/bitpack.hpp"
#include "pygolf/dequantize.hpp"
#include "pygolf/gptq.hpp"
#include "torch_ops_support.hpp"

namespace pygolf {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <typename T>
Tensor copied(std::span<const T> values, const Tensor& beside, ScalarType dtype,
              std::initializer_list<std::int64_t> sizes) {
    const Tensor tensor = empty_beside(beside, dtype, sizes);
    std::ranges::copy(values, mutable_elements<T>(tensor).begin());
    return tensor;
}

using Solution = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

Solution tensors_of(const GptqResult& result, const Tensor& beside) {
    const auto rows = static_cast<std::int64_t>(result.scales_R.size());
    const auto columns = static_cast<std::int64_t>(result.codes_RC.size()) / rows;
    const double info[] = {result.damping, static_cast<double>(result.dead_columns)};
    return {copied<std::int8_t>(result.codes_RC, beside, ScalarType::Char, {rows, columns}),
            copied<std::uint16_t>(result.scales_R, beside, ScalarType::Half, {rows}),
            copied<std::int32_t>(result.choice_R, beside, ScalarType::Int, {rows}),
            copied<float>(result.error_R, beside, ScalarType::Float, {rows}),
            copied<double>(info, beside, ScalarType::Double, {2})};
}

Solution gptq_solve_cpu(Tensor weight, Tensor hessian, Tensor clips, std::int64_t max_code, double damping,
                        std::int64_t block_columns, std::int64_t threads) {
    return with_typed_errors([&] {
        const Tensor weight_RC = checked(weight, "weight", ScalarType::Float, 2);
        const Tensor hessian_CC = checked(hessian, "hessian", ScalarType::Float, 2);
        const Tensor clips_KR = checked(clips, "clips", ScalarType::Float, 2);
        check_shape(hessian_CC, "hessian", {weight_RC.size(1), weight_RC.size(1)});
        check_shape(clips_KR, "clips", {clips_KR.size(0), weight_RC.size(0)});
        const GptqProblem problem{.rows = static_cast<std::size_t>(weight_RC.size(0)),
                                  .columns = static_cast<std::size_t>(weight_RC.size(1)),
                                  .candidates = static_cast<std::size_t>(clips_KR.size(0)),
                                  .weight_RC = elements<float>(weight_RC),
                                  .hessian_CC = elements<float>(hessian_CC),
                                  .clips_KR = elements<float>(clips_KR)};
        const GptqOptions options{.max_code = checked_int(max_code, "max_code"),
                                  .damping = damping,
                                  .block_columns = checked_int(block_columns, "block_columns"),
                                  .threads = checked_int(threads, "threads")};
        return tensors_of(gptq_solve(problem, options), weight);
    });
}

Tensor pack_cpu(Tensor codes, std::int64_t bits) {
    return with_typed_errors([&] {
        const Tensor contiguous = checked(codes, "codes", ScalarType::Char);
        const auto values = elements<std::int8_t>(contiguous);
        const int width = checked_int(bits, "bits");
        const auto size = static_cast<std::int64_t>(packed_bytes(values.size(), width));
        const Tensor packed = empty_beside(codes, ScalarType::Byte, {size});
        pack_codes(values, width, mutable_elements<std::uint8_t>(packed));
        return packed;
    });
}

Tensor unpack_cpu(Tensor packed, std::int64_t bits, std::int64_t count) {
    return with_typed_errors([&] {
        const Tensor bytes = checked_packed(packed, bits, count);
        const Tensor codes = empty_beside(packed, ScalarType::Char, {count});
        unpack_codes(elements<std::uint8_t>(bytes), static_cast<int>(bits),
                     mutable_elements<std::int8_t>(codes));
        return codes;
    });
}

Tensor dequantize_cpu(Tensor codes, Tensor scales) {
    return with_typed_errors([&] {
        const auto [codes_RC, scales_R] = checked_rows(codes, scales);
        const Tensor values_RC = empty_beside(codes, ScalarType::Float, {codes_RC.size(0), codes_RC.size(1)});
        dequantize_rows(elements<std::int8_t>(codes_RC), elements<std::uint16_t>(scales_R),
                        mutable_elements<float>(values_RC));
        return values_RC;
    });
}

}  // namespace
}  // namespace pygolf

STABLE_TORCH_LIBRARY(pygolf, library) {
    library.def(
        "gptq_solve(Tensor weight, Tensor hessian, Tensor clips, int max_code, float damping, int "
        "block_columns, "
        "int threads) -> (Tensor codes, Tensor scales, Tensor choice, Tensor error, Tensor info)");
    library.def("pack(Tensor codes, int bits) -> Tensor");
    library.def("unpack(Tensor packed, int bits, int count) -> Tensor");
    library.def("dequantize(Tensor codes, Tensor scales) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pygolf, CPU, library) {
    library.impl("gptq_solve", TORCH_BOX(&pygolf::gptq_solve_cpu));
    library.impl("pack", TORCH_BOX(&pygolf::pack_cpu));
    library.impl("unpack", TORCH_BOX(&pygolf::unpack_cpu));
    library.impl("dequantize", TORCH_BOX(&pygolf::dequantize_cpu));
}
