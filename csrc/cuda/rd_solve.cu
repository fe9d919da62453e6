#include <algorithm>

#include "launch_check.cuh"
#include "rd_coding.cuh"
#include "rd_feedback.cuh"
#include "rd_solve.hpp"
#include "rd_trellis.cuh"

namespace pygolf::cuda {
namespace {

constexpr int kPitch = kTileColumns + 4;  // keeps rows aligned to vectors, and columns out of one bank

using TileValues = float[kTileRows][kPitch];

// The product's stages are done with when the coefficients of the tile are loaded.
struct Workspace {
    union {
        Stage stages[2];
        Coefficients coefficients;
    };
    TileValues weights;  // with feedback of all earlier tiles; then e
};

struct TwoSidedWorkspace : Workspace {
    TileValues targets;                        // t: with feedback of the rows above only; then z / V_ii
    float row_feedback[kTileRows][kTileRows];  // V
};

// Tiles on one wave do not depend on each other: a block column, or an antidiagonal if two-sided.
struct Wave {
    int first_row_tile;
    int row_tiles;
    int column_tile;  // of the first row tile; two-sided: one less for each row tile after it
};

struct Tile {
    std::int64_t matrix;
    std::int64_t row;
    std::int64_t column;
    int rows;  // that exist
    int columns;
};

template <bool two_sided>
__device__ Tile tile_of(const RdParams& p, const Wave& wave) {
    const int index = static_cast<int>(blockIdx.x) % wave.row_tiles;
    Tile tile;
    tile.matrix = blockIdx.x / wave.row_tiles;
    tile.row = std::int64_t{wave.first_row_tile + index} * kTileRows;
    tile.column = std::int64_t{wave.column_tile - (two_sided ? index : 0)} * kTileColumns;
    tile.rows = static_cast<int>(min(std::int64_t{kTileRows}, p.copies * p.rows - tile.row));
    tile.columns = static_cast<int>(min(std::int64_t{kTileColumns}, p.columns - tile.column));
    return tile;
}

__device__ void load_weights(const RdParams& p, const Tile& tile, float (&patch)[kPatch][kPatch]) {
    const int first_row = static_cast<int>(threadIdx.x) / 32 * kPatch;
    const int first_column = static_cast<int>(threadIdx.x) % 32 * kPatch;
    for (int i = 0; i < kPatch; ++i) {
        const bool exists = first_row + i < tile.rows;
        const auto row =
            static_cast<std::uint32_t>(tile.row + first_row + i) % static_cast<std::uint32_t>(p.rows);
        const float* weights = p.weight_MRC + (tile.matrix * p.rows + row) * p.columns + tile.column;
        for (int j = 0; j < kPatch; ++j) {
            const int column = first_column + j;
            patch[i][j] = exists && column < tile.columns ? weights[column] : 0.0f;
        }
    }
}

__device__ void store_patch(TileValues& values, const float (&patch)[kPatch][kPatch]) {
    const int first_row = static_cast<int>(threadIdx.x) / 32 * kPatch;
    const int first_column = static_cast<int>(threadIdx.x) % 32 * kPatch;
    for (int i = 0; i < kPatch; ++i) {
        *reinterpret_cast<float4*>(&values[first_row + i][first_column]) =
            make_float4(patch[i][0], patch[i][1], patch[i][2], patch[i][3]);
    }
}

// Weights of the tile with the feedback of everything coded before.
__device__ void gather(const RdParams& p, const Tile& tile, Workspace& work, TileValues* targets) {
    float patch[kPatch][kPatch];
    load_weights(p, tile, patch);
    const std::int64_t all_rows = p.copies * p.rows;
    if (targets != nullptr) {
        const Slab above{p.row_factor_MRR + tile.matrix * p.rows * p.rows + tile.row, p.rows, tile.rows};
        const Slab errors{p.row_error_MRC + tile.matrix * p.rows * p.columns + tile.column, p.columns,
                          tile.columns};
        subtract_product(patch, above, errors, static_cast<int>(tile.row), work.stages);
        store_patch(*targets, patch);
    }
    const Slab errors{p.column_error_MCN + tile.matrix * p.columns * all_rows + tile.row, all_rows,
                      tile.rows};
    const Slab before{p.factor_MCC + tile.matrix * p.columns * p.columns + tile.column, p.columns,
                      tile.columns};
    subtract_product(patch, errors, before, static_cast<int>(tile.column), work.stages);
    store_patch(work.weights, patch);
}

// The factor's square on the diagonal, strictly upper part.
template <int size>
__device__ void load_square(float (&square)[size][size], const float* factor, std::int64_t pitch,
                            std::int64_t first, int extent) {
    for (int i = static_cast<int>(threadIdx.x); i < size * size; i += kThreads) {
        const int row = i / size;
        const int column = i % size;
        square[row][column] =
            row < column && column < extent ? factor[(first + row) * pitch + first + column] : 0.0f;
    }
}

// What a lane knows of its columns, the same for all rows of the tile.
struct LaneColumns {
    float step_T[kLaneColumns];
    float inverse_diagonal_T[kLaneColumns];
    float price_T[kLaneColumns];
    int is_plain_T[kLaneColumns];
};

__device__ LaneColumns lane_columns(const RdParams& p, const Tile& tile, int lane) {
    LaneColumns found;
    for (int t = 0; t < kLaneColumns; ++t) {
        const bool exists = lane + 32 * t < tile.columns;
        const std::int64_t column = tile.column + lane + 32 * t;
        const std::int64_t line = tile.matrix * p.columns + column;
        found.step_T[t] = exists && p.step_col_MC != nullptr ? p.step_col_MC[line] : 1.0f;
        found.price_T[t] = exists && p.price_col_MC != nullptr ? p.price_col_MC[line] : 0.0f;
        found.is_plain_T[t] = exists && p.plain_col_MC != nullptr && p.plain_col_MC[line] != 0;
        found.inverse_diagonal_T[t] =
            exists ? 1.0f / positive(p.factor_MCC[line * p.columns + column]) : 0.0f;
    }
    return found;
}

__device__ RowPart row_part(const Tile& tile, const LaneColumns& lines, float row_step, float row_price,
                            const float (&weights)[kPitch], int lane) {
    RowPart row{};
    row.columns = tile.columns;
    for (int t = 0; t < kLaneColumns; ++t) {
        row.weight_T[t] = weights[lane + 32 * t];
        row.step_T[t] = positive(__fmul_rn(row_step, lines.step_T[t]));
        row.inverse_diagonal_T[t] = lines.inverse_diagonal_T[t];
        row.price_T[t] = row_price * lines.price_T[t];
        const float unit_error = row.step_T[t] * lines.inverse_diagonal_T[t];
        const float square = unit_error * unit_error;
        row.target_T[t] =
            row.price_T[t] == 0 ? 1.0f / row.step_T[t] : square / ((square + row.price_T[t]) * row.step_T[t]);
        row.is_plain_T[t] = lines.is_plain_T[t];
    }
    return row;
}

// Feedback of the tile's coded rows to a row: each lane reads what it wrote itself.
__device__ void take_feedback_of_rows(TwoSidedWorkspace& work, int row, int lane) {
    for (int above = 0; above < row; ++above) {
        const float coefficient = work.row_feedback[above][row];
        for (int column = lane; column < kTileColumns; column += 32) {
            const float feedback = coefficient * work.targets[above][column];
            work.targets[row][column] -= feedback;
            work.weights[row][column] -= feedback;
        }
    }
}

template <int states>
__device__ void code(const RdParams& p, const Tile& tile, RowPart& part, const Coefficients& coefficients,
                     std::int64_t line, int lane) {
    if constexpr (states == 1) {
        code_plain(part, coefficients, p.max_code, lane);
    } else {
        const int state =
            code_trellis<states>(part, coefficients, tile.column == 0 ? 0 : p.state_MN[line], lane);
        __syncwarp();
        if (lane == 0) p.state_MN[line] = static_cast<std::uint8_t>(state);
    }
}

__device__ double sum_of_lanes(double value) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
    return value;
}

// Writes codes and errors of a coded row. `weights` become e, `targets` (two-sided) z / V_ii.
template <int states>
__device__ void finish_row(const RdParams& p, const Tile& tile, const RowPart& part, std::int64_t line,
                           float inverse_row_diagonal, float (&weights)[kPitch], float* targets, int lane) {
    double error_square = 0;
    for (int t = 0; t < kLaneColumns; ++t) {
        const int column = lane + 32 * t;
        const float target = part.weight_T[t] * part.target_T[t];
        const float multiple = states == 1
                                   ? nearest(target, p.max_code)
                                   : nearest_in_class(target, static_cast<int>(part.classes >> (2 * t) & 3u));
        const float code = states == 1 ? multiple : floorf(multiple * 0.5f);
        const float error = fmaf(-multiple, part.step_T[t], part.weight_T[t]) * part.inverse_diagonal_T[t];
        weights[column] = error;
        if (targets != nullptr) {
            targets[column] = fmaf(-multiple, part.step_T[t], targets[column]) * inverse_row_diagonal;
        }
        if (column >= tile.columns) continue;
        p.codes_MNC[line * p.columns + tile.column + column] = static_cast<std::int16_t>(code);
        error_square += double{error} * error;
        if (!(code >= -32768.0f && code <= 32767.0f)) error_square += CUDART_INF;
    }
    const double scale = double{inverse_row_diagonal} * inverse_row_diagonal;
    const double sum = sum_of_lanes(error_square) * scale;
    if (lane == 0) p.error_MN[line] = sum + (tile.column == 0 ? 0.0 : p.error_MN[line]);
}

// One-sided, each warp codes every eighth row; two-sided, one warp codes all, each after the one above.
template <int states, bool two_sided, typename Work>
__device__ void code_rows(const RdParams& p, const Tile& tile, Work& work) {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const LaneColumns lines = lane_columns(p, tile, lane);
    const int end = two_sided && warp != 0 ? 0 : tile.rows;
    for (int row = warp; row < end; row += two_sided ? 1 : kWarps) {
        const std::int64_t line = tile.matrix * p.copies * p.rows + tile.row + row;
        float* targets = nullptr;
        float inverse_row_diagonal = 1.0f;
        if constexpr (two_sided) {
            take_feedback_of_rows(work, row, lane);
            targets = work.targets[row];
            inverse_row_diagonal = 1.0f / positive(p.row_factor_MRR[line * p.rows + tile.row + row]);
        }
        const float row_price = p.price_row_MN != nullptr ? p.price_row_MN[line] : 0.0f;
        RowPart part = row_part(tile, lines, p.step_row_MN[line], row_price, work.weights[row], lane);
        code<states>(p, tile, part, work.coefficients, line, lane);
        finish_row<states>(p, tile, part, line, inverse_row_diagonal, work.weights[row], targets, lane);
    }
}

__device__ void store_errors(const RdParams& p, const Tile& tile, const Workspace& work,
                             const TileValues* targets) {
    const std::int64_t all_rows = p.copies * p.rows;
    for (int i = static_cast<int>(threadIdx.x); i < kTileRows * tile.columns; i += kThreads) {
        const int row = i % kTileRows;
        const int column = i / kTileRows;
        if (row >= tile.rows) continue;
        p.column_error_MCN[(tile.matrix * p.columns + tile.column + column) * all_rows + tile.row + row] =
            work.weights[row][column];
    }
    if (targets == nullptr) return;
    for (int i = static_cast<int>(threadIdx.x); i < tile.rows * kTileColumns; i += kThreads) {
        const int row = i / kTileColumns;
        const int column = i % kTileColumns;
        if (column >= tile.columns) continue;
        p.row_error_MRC[(tile.matrix * p.rows + tile.row + row) * p.columns + tile.column + column] =
            (*targets)[row][column];
    }
}

template <int states, bool two_sided>
__global__ void __launch_bounds__(kThreads) solve_wave(RdParams p, Wave wave) {
    using Work = std::conditional_t<two_sided, TwoSidedWorkspace, Workspace>;
    extern __shared__ float4 shared[];
    Work& work = *reinterpret_cast<Work*>(shared);
    TileValues* targets = nullptr;
    const Tile tile = tile_of<two_sided>(p, wave);
    if constexpr (two_sided) {
        targets = &work.targets;
        load_square(work.row_feedback, p.row_factor_MRR + tile.matrix * p.rows * p.rows, p.rows, tile.row,
                    tile.rows);
    }
    gather(p, tile, work, targets);
    load_square(work.coefficients, p.factor_MCC + tile.matrix * p.columns * p.columns, p.columns, tile.column,
                tile.columns);
    __syncthreads();
    code_rows<states, two_sided>(p, tile, work);
    __syncthreads();
    store_errors(p, tile, work, targets);
}

int tiles_in(std::int64_t extent, int tile) { return static_cast<int>((extent + tile - 1) / tile); }

template <int states, bool two_sided>
void launch(const RdParams& p, cudaStream_t stream) {
    constexpr auto kernel = solve_wave<states, two_sided>;
    constexpr int bytes = sizeof(std::conditional_t<two_sided, TwoSidedWorkspace, Workspace>);
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    const int row_tiles = tiles_in(p.copies * p.rows, kTileRows);
    const int column_tiles = tiles_in(p.columns, kTileColumns);
    const int waves = two_sided ? row_tiles + column_tiles - 1 : column_tiles;
    for (int i = 0; i < waves; ++i) {
        Wave wave{.first_row_tile = 0, .row_tiles = row_tiles, .column_tile = i};
        if (two_sided) {
            wave.first_row_tile = std::max(0, i - column_tiles + 1);
            wave.row_tiles = std::min(row_tiles - 1, i) - wave.first_row_tile + 1;
            wave.column_tile = i - wave.first_row_tile;
        }
        const auto blocks = static_cast<unsigned>(p.matrices * wave.row_tiles);
        kernel<<<blocks, kThreads, bytes, stream>>>(p, wave);
        check_launch("rd_solve");
    }
}

template <bool two_sided>
void launch_states(const RdParams& p, cudaStream_t stream) {
    switch (p.states) {
        case 1:
            return launch<1, two_sided>(p, stream);
        case 4:
            return launch<4, two_sided>(p, stream);
        case 8:
            return launch<8, two_sided>(p, stream);
        default:
            fail<ArgumentError>("states is ", p.states, ", expected 1 (no trellis), 4 or 8");
    }
}

}  // namespace

void launch_rd_solve(const RdParams& params, cudaStream_t stream) {
    if (params.row_factor_MRR != nullptr) {
        launch_states<true>(params, stream);
    } else {
        launch_states<false>(params, stream);
    }
}

}  // namespace pygolf::cuda
