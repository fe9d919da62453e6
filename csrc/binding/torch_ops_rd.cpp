// The torch operator pygolf::rd_solve and its CPU kernel (see torch_ops.cpp and pygolf/ops.py).
//
// Legend: M matrices of one shape, R rows, C columns.
#include <torch/csrc/stable/library.h>

#include <optional>

#include "pygolf/rd_quantize.hpp"
#include "torch_ops_support.hpp"

namespace pygolf {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

std::optional<Tensor> checked_flags(const std::optional<Tensor>& flags, const char* name,
                                    std::initializer_list<std::int64_t> sizes) {
    if (!flags) return std::nullopt;
    check_shape(*flags, name, sizes);
    return checked(*flags, name, ScalarType::Byte);
}

std::tuple<Tensor, Tensor> rd_solve_cpu(Tensor weight, Tensor input_factor,
                                        std::optional<Tensor> output_factor, Tensor step_row, Tensor step_col,
                                        std::optional<Tensor> plain_col, std::int64_t states,
                                        double rate_lambda, std::int64_t threads) {
    return with_typed_errors([&] {
        const Tensor weight_MRC = checked(weight, "weight", ScalarType::Float, 3);
        const std::int64_t matrices = weight_MRC.size(0);
        const std::int64_t rows = weight_MRC.size(1);
        const std::int64_t columns = weight_MRC.size(2);
        const Tensor input_MCC = checked(input_factor, "input_factor", ScalarType::Float, 3);
        check_shape(input_MCC, "input_factor", {matrices, columns, columns});
        std::optional<Tensor> output_MRR;
        if (output_factor) {
            output_MRR = checked(*output_factor, "output_factor", ScalarType::Float, 3);
            check_shape(*output_MRR, "output_factor", {matrices, rows, rows});
        }
        const Tensor row_MR = checked(step_row, "step_row", ScalarType::Float, 2);
        check_shape(row_MR, "step_row", {matrices, rows});
        const Tensor col_MC = checked(step_col, "step_col", ScalarType::Float, 2);
        check_shape(col_MC, "step_col", {matrices, columns});

        const auto plain_col_MC = checked_flags(plain_col, "plain_col", {matrices, columns});
        const RdProblem problem{
            .matrices = static_cast<std::size_t>(matrices),
            .rows = static_cast<std::size_t>(rows),
            .columns = static_cast<std::size_t>(columns),
            .weight_MRC = elements<float>(weight_MRC),
            .input_factor_MCC = elements<float>(input_MCC),
            .output_factor_MRR = output_MRR ? elements<float>(*output_MRR) : std::span<const float>{},
            .step_row_MR = elements<float>(row_MR),
            .step_col_MC = elements<float>(col_MC),
            .plain_col_MC =
                plain_col_MC ? elements<std::uint8_t>(*plain_col_MC) : std::span<const std::uint8_t>{}};
        const RdOptions options{.states = checked_int(states, "states"),
                                .rate_lambda = static_cast<float>(rate_lambda),
                                .threads = checked_int(threads, "threads")};
        const Tensor codes = empty_beside(weight, ScalarType::Short, {matrices, rows, columns});
        const Tensor error = empty_beside(weight, ScalarType::Float, {matrices});
        rd_quantize(problem, options, mutable_elements<std::int16_t>(codes), mutable_elements<float>(error));
        return std::tuple{codes, error};
    });
}

}  // namespace
}  // namespace pygolf

STABLE_TORCH_LIBRARY_FRAGMENT(pygolf, library) {
    library.def(
        "rd_solve(Tensor weight, Tensor input_factor, Tensor? output_factor, Tensor step_row, Tensor "
        "step_col, "
        "Tensor? plain_col, int states, float rate_lambda, int threads) -> (Tensor codes, Tensor error)");
}

STABLE_TORCH_LIBRARY_IMPL(pygolf, CPU, library) {
    library.impl("rd_solve", TORCH_BOX(&pygolf::rd_solve_cpu));
}
