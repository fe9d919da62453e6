// CUDA kernels of rd_solve and of GPTQ's clip candidates. Empty in a build without a CUDA compiler.
//
// Legend: M matrices of one shape, R rows, C columns, K candidates for the step of a row.
#ifdef PYGOLF_WITH_CUDA

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>

#include "rd_solve.hpp"
#include "torch_ops_cuda_support.hpp"

namespace pygolf {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using torch::stable::accelerator::DeviceGuard;

// A tensor of this shape on the weight's device.
Tensor checked_beside(const Tensor& weight, const Tensor& tensor, const char* name,
                      std::initializer_list<std::int64_t> sizes, ScalarType dtype = ScalarType::Float) {
    const Tensor contiguous = checked(tensor, name, dtype, static_cast<std::int64_t>(sizes.size()));
    check_shape(contiguous, name, sizes);
    if (!tensor.is_cuda() || tensor.get_device_index() != weight.get_device_index()) {
        fail<ArgumentError>(name, " is not on the device of weight, cuda:", weight.get_device_index(),
                            "; move it there");
    }
    return contiguous;
}

Tensor checked_weights(const Tensor& weight) {
    const Tensor weight_MRC = checked(weight, "weight", ScalarType::Float, 3);
    if (weight_MRC.numel() == 0) {
        fail<ArgumentError>("weight is empty, expected at least one matrix, row and column");
    }
    return weight_MRC;
}

const float* floats(const Tensor& tensor) { return static_cast<const float*>(tensor.const_data_ptr()); }

template <typename T>
T* data(const Tensor& tensor) {
    return static_cast<T*>(tensor.mutable_data_ptr());
}

struct Outputs {
    Tensor codes_MNC;
    Tensor error_MN;
};

// Allocates outputs and scratch, whose memory torch reuses in stream order, and launches.
Outputs solve(const Tensor& weight_MRC, cuda::RdParams params) {
    params.matrices = weight_MRC.size(0);
    params.rows = weight_MRC.size(1);
    params.columns = weight_MRC.size(2);
    const std::int64_t all_rows = params.copies * params.rows;
    Outputs outputs{empty_beside(weight_MRC, ScalarType::Short, {params.matrices, all_rows, params.columns}),
                    empty_beside(weight_MRC, ScalarType::Double, {params.matrices, all_rows})};
    const Tensor column_error =
        empty_beside(weight_MRC, ScalarType::Float, {params.matrices, params.columns, all_rows});
    const bool two_sided = params.row_factor_MRR != nullptr;
    const Tensor row_error = empty_beside(weight_MRC, ScalarType::Float,
                                          {two_sided ? params.matrices : 0, params.rows, params.columns});
    const Tensor state =
        empty_beside(weight_MRC, ScalarType::Byte, {params.states > 1 ? params.matrices : 0, all_rows});
    params.weight_MRC = floats(weight_MRC);
    params.codes_MNC = data<std::int16_t>(outputs.codes_MNC);
    params.error_MN = data<double>(outputs.error_MN);
    params.column_error_MCN = data<float>(column_error);
    params.row_error_MRC = data<float>(row_error);
    params.state_MN = data<std::uint8_t>(state);
    cuda::launch_rd_solve(params, current_stream(weight_MRC));
    return outputs;
}

// Prices of a row and a column: their product is what the square of a value costs (see RdOptions).
struct Prices {
    Tensor row_MR;
    Tensor col_MC;
};

Prices prices_of(const Tensor& weight_MRC, const cuda::RdParams& params, double rate_lambda) {
    const std::int64_t matrices = weight_MRC.size(0);
    const std::int64_t rows = weight_MRC.size(1);
    const std::int64_t columns = weight_MRC.size(2);
    const Tensor square_MR = empty_beside(weight_MRC, ScalarType::Double, {matrices, rows});
    Prices prices{empty_beside(weight_MRC, ScalarType::Float, {matrices, rows}),
                  empty_beside(weight_MRC, ScalarType::Float, {matrices, columns})};
    cuda::launch_rd_prices({.weight_MRC = floats(weight_MRC),
                            .factor_MCC = params.factor_MCC,
                            .step_row_MR = params.step_row_MN,
                            .step_col_MC = params.step_col_MC,
                            .square_MR = data<double>(square_MR),
                            .price_row_MR = data<float>(prices.row_MR),
                            .price_col_MC = data<float>(prices.col_MC),
                            .matrices = matrices,
                            .rows = rows,
                            .columns = columns,
                            .rate_lambda = static_cast<float>(rate_lambda)},
                           current_stream(weight_MRC));
    return prices;
}

void check_rate(double rate_lambda) {
    if (!(rate_lambda >= 0 && rate_lambda <= 100)) {
        fail<ArgumentError>("rate_lambda is ", rate_lambda, ", expected 0 to 100 (0.1 is usual)");
    }
}

std::tuple<Tensor, Tensor> rd_solve_cuda(Tensor weight, Tensor input_factor,
                                         std::optional<Tensor> output_factor, Tensor step_row,
                                         Tensor step_col, std::optional<Tensor> plain_col,
                                         std::int64_t states, double rate_lambda, std::int64_t /*threads*/) {
    return with_typed_errors([&] {
        const DeviceGuard guard(weight.get_device_index());
        const Tensor weight_MRC = checked_weights(weight);
        const std::int64_t matrices = weight_MRC.size(0);
        const std::int64_t rows = weight_MRC.size(1);
        const std::int64_t columns = weight_MRC.size(2);
        check_rate(rate_lambda);
        const Tensor input_MCC =
            checked_beside(weight, input_factor, "input_factor", {matrices, columns, columns});
        const Tensor row_MR = checked_beside(weight, step_row, "step_row", {matrices, rows});
        const Tensor col_MC = checked_beside(weight, step_col, "step_col", {matrices, columns});
        cuda::RdParams params{.factor_MCC = floats(input_MCC),
                              .step_row_MN = floats(row_MR),
                              .step_col_MC = floats(col_MC),
                              .states = checked_int(states, "states")};
        std::optional<Tensor> output_MRR;
        if (output_factor) {
            output_MRR = checked_beside(weight, *output_factor, "output_factor", {matrices, rows, rows});
            params.row_factor_MRR = floats(*output_MRR);
        }
        std::optional<Tensor> plain_MC;
        if (plain_col) {
            plain_MC = checked_beside(weight, *plain_col, "plain_col", {matrices, columns}, ScalarType::Byte);
            params.plain_col_MC = static_cast<const std::uint8_t*>(plain_MC->const_data_ptr());
        }
        std::optional<Prices> prices;
        if (rate_lambda > 0) {
            prices = prices_of(weight_MRC, params, rate_lambda);
            params.price_row_MN = floats(prices->row_MR);
            params.price_col_MC = floats(prices->col_MC);
        }
        const Outputs outputs = solve(weight_MRC, params);
        const std::int64_t row_axis[] = {1};
        const Tensor error_M = torch::stable::sum(outputs.error_MN, row_axis);
        return std::tuple{outputs.codes_MNC, torch::stable::to(error_M, ScalarType::Float)};
    });
}

std::tuple<Tensor, Tensor> gptq_rows_cuda(Tensor weight, Tensor factor, Tensor steps, std::int64_t max_code) {
    return with_typed_errors([&] {
        const DeviceGuard guard(weight.get_device_index());
        const Tensor weight_MRC = checked_weights(weight);
        const std::int64_t matrices = weight_MRC.size(0);
        const std::int64_t rows = weight_MRC.size(1);
        const std::int64_t columns = weight_MRC.size(2);
        const Tensor factor_MCC = checked_beside(weight, factor, "factor", {matrices, columns, columns});
        const std::int64_t candidates = steps.dim() == 3 ? std::max<std::int64_t>(steps.size(1), 1) : 1;
        const Tensor steps_MKR = checked_beside(weight, steps, "steps", {matrices, candidates, rows});
        const Outputs outputs = solve(weight_MRC, {.factor_MCC = floats(factor_MCC),
                                                   .step_row_MN = floats(steps_MKR),
                                                   .copies = candidates,
                                                   .max_code = static_cast<float>(max_code)});
        return std::tuple{torch::stable::view(outputs.codes_MNC, {matrices, candidates, rows, columns}),
                          torch::stable::view(outputs.error_MN, {matrices, candidates, rows})};
    });
}

}  // namespace
}  // namespace pygolf

STABLE_TORCH_LIBRARY_FRAGMENT(pygolf, library) {
    library.def(
        "gptq_rows(Tensor weight, Tensor factor, Tensor steps, int max_code) -> (Tensor codes, Tensor "
        "error)");
}

STABLE_TORCH_LIBRARY_IMPL(pygolf, CUDA, library) {
    library.impl("rd_solve", TORCH_BOX(&pygolf::rd_solve_cuda));
    library.impl("gptq_rows", TORCH_BOX(&pygolf::gptq_rows_cuda));
}

#endif  // PYGOLF_WITH_CUDA
