#include "pygolf/rd_quantize.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "parallel.hpp"
#include "pygolf/error.hpp"
#include "pygolf/trellis.hpp"
#include "rd_matrix.hpp"
#include "rd_row.hpp"
#include "simd_kernels.hpp"
#include "solver_checks.hpp"

namespace pygolf {
namespace {

// Rows of a task where rows do not wait for one another.
constexpr std::size_t kTaskRows = 192;

void check_arguments(const RdProblem& problem, const RdOptions& options) {
    const std::size_t rows = problem.rows;
    const std::size_t columns = problem.columns;
    if (problem.matrices == 0 || rows == 0 || columns == 0) {
        fail<ArgumentError>("weight is ", problem.matrices, " x ", rows, " x ", columns,
                            ", expected at least one matrix, row and column");
    }
    check_size("weight", problem.weight_MRC.size(), problem.matrices * rows * columns);
    check_size("input_factor", problem.input_factor_MCC.size(), problem.matrices * columns * columns);
    if (!problem.output_factor_MRR.empty()) {
        check_size("output_factor", problem.output_factor_MRR.size(), problem.matrices * rows * rows);
    }
    check_size("step_row", problem.step_row_MR.size(), problem.matrices * rows);
    check_size("step_col", problem.step_col_MC.size(), problem.matrices * columns);
    if (!problem.plain_col_MC.empty()) {
        check_size("plain_col", problem.plain_col_MC.size(), problem.matrices * columns);
    }
    if (!is_trellis_states(options.states)) {
        fail<ArgumentError>("states is ", options.states, ", expected 1 (plain), 4 or 8");
    }
    if (!(options.rate_lambda >= 0 && options.rate_lambda <= 100)) {
        fail<ArgumentError>("rate_lambda is ", options.rate_lambda, ", expected 0 to 100 (0.1 is usual)");
    }
    check_threads(options.threads);
}

void check_finite(const char* name, std::span<const float> values, std::size_t rows, std::size_t columns) {
    const auto found = first_non_finite(values);
    if (!found) return;
    const std::size_t at = *found;
    fail<NumericError>(name, "[", at / columns / rows, ", ", at / columns % rows, ", ", at % columns, "] is ",
                       values[at], ", expected a finite number; look for the step that made it");
}

void check_steps(const char* name, std::span<const float> steps_MN, std::size_t count) {
    for (std::size_t at = 0; at < steps_MN.size(); ++at) {
        if (steps_MN[at] > 0) continue;
        fail<NumericError>(name, "[", at / count, ", ", at % count, "] is ", steps_MN[at],
                           ", expected above 0: the step of its weights");
    }
}

void check_diagonal(const char* name, std::span<const float> factor_MNN, std::size_t count) {
    for (std::size_t at = 0; at < factor_MNN.size() / count; ++at) {
        const float value = factor_MNN[at * count + at % count];
        if (value > 0) continue;
        fail<NumericError>(name, "[", at / count, ", ", at % count, ", ", at % count, "] is ", value,
                           ", expected above 0: the diagonal of a Cholesky factor");
    }
}

void check_values(const RdProblem& problem) {
    const std::size_t rows = problem.rows;
    const std::size_t columns = problem.columns;
    check_finite("weight", problem.weight_MRC, rows, columns);
    check_finite("input_factor", problem.input_factor_MCC, columns, columns);
    check_finite("output_factor", problem.output_factor_MRR, rows, rows);
    check_diagonal("input_factor", problem.input_factor_MCC, columns);
    check_diagonal("output_factor", problem.output_factor_MRR, rows);
    check_steps("step_row", problem.step_row_MR, rows);
    check_steps("step_col", problem.step_col_MC, columns);
}

RdMatrix matrix_of(const RdProblem& problem, std::size_t m) {
    const std::size_t rows = problem.rows;
    const std::size_t columns = problem.columns;
    const bool two_sided = !problem.output_factor_MRR.empty();
    return {
        .index = m,
        .rows = rows,
        .columns = columns,
        .weight_RC = problem.weight_MRC.data() + m * rows * columns,
        .input_factor_CC = problem.input_factor_MCC.data() + m * columns * columns,
        .output_factor_RR = two_sided ? problem.output_factor_MRR.data() + m * rows * rows : nullptr,
        .step_row_R = problem.step_row_MR.data() + m * rows,
        .step_col_C = problem.step_col_MC.data() + m * columns,
        .plain_col_C = problem.plain_col_MC.empty() ? nullptr : problem.plain_col_MC.data() + m * columns};
}

}  // namespace

void rd_quantize(const RdProblem& problem, const RdOptions& options, std::span<std::int16_t> codes_MRC,
                 std::span<float> error_M) {
    check_arguments(problem, options);
    check_size("codes", codes_MRC.size(), problem.weight_MRC.size());
    check_size("error", error_M.size(), problem.matrices);
    check_values(problem);

    const TrellisBranches trellis = branches_of(options.states);
    std::vector<RdPrices> prices(problem.matrices);
    parallel_for(problem.matrices, options.threads,
                 [&](std::size_t m) { prices[m] = make_prices(matrix_of(problem, m), options.rate_lambda); });

    const std::size_t task_rows = problem.output_factor_MRR.empty() ? kTaskRows : problem.rows;
    const std::size_t tasks = (problem.rows + task_rows - 1) / task_rows;
    std::vector<double> errors(problem.matrices * tasks);
    parallel_for(errors.size(), options.threads, [&](std::size_t at) {
        const RdMatrix matrix = matrix_of(problem, at / tasks);
        const std::size_t first = at % tasks * task_rows;
        const RdContext context{matrix,
                                prices[at / tasks],
                                options.states,
                                trellis,
                                supported_rd_kernels().back(),
                                supported_kernels().back()};
        RdSolver solver(context, first, std::min(task_rows, problem.rows - first));
        errors[at] = solver.solve(codes_MRC.data() + at / tasks * problem.rows * problem.columns);
    });
    for (std::size_t m = 0; m < problem.matrices; ++m) {
        double sum = 0;
        for (std::size_t task = 0; task < tasks; ++task) sum += errors[m * tasks + task];
        error_M[m] = static_cast<float>(sum);
    }
}

}  // namespace pygolf
