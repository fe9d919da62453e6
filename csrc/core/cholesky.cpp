#include "cholesky.hpp"

#include <algorithm>
#include <cmath>

#include "parallel.hpp"

namespace pygolf {
namespace {

constexpr std::size_t kUnit = 48;          // a multiple of kPanel and of every tile height
constexpr std::size_t kBlock = 2 * kUnit;  // columns eliminated together

// Row-major lower triangle A -> L, column by column, each taken out of all later columns at once.
bool factor_square(std::vector<double>& square, std::size_t width, double least_pivot) {
    std::vector<double> column(width);
    for (std::size_t j = 0; j < width; ++j) {
        const double pivot = square[j * width + j];
        if (!(pivot >= least_pivot) || !std::isfinite(pivot)) return false;
        const double root = std::sqrt(pivot);
        for (std::size_t row = j; row < width; ++row) column[row] = square[row * width + j] /= root;
        for (std::size_t row = j + 1; row < width; ++row) {
            const double factor = column[row];
            double* values = &square[row * width];
            for (std::size_t k = j + 1; k <= row; ++k) values[k] -= factor * column[k];
        }
    }
    return true;
}

}  // namespace

CholeskyMatrix::CholeskyMatrix(std::size_t order, const Kernels& kernels)
    : kernels_(&kernels),
      lanes_(kernels.double_lanes),
      padded_order_((order + kUnit - 1) / kUnit * kUnit),
      values_(padded_order_ * padded_order_) {
    for (std::size_t i = order; i < padded_order_; ++i) at(i, i) = 1.0;
}

// Right-looking: factor the block's diagonal square, solve the tiles below it, then take the block's share
// out of everything to its right. Tiles are independent in both steps.
bool CholeskyMatrix::factor(double least_pivot, int threads) {
    for (std::size_t begin = 0; begin < padded_order_; begin += kBlock) {
        Block block{begin, std::min(begin + kBlock, padded_order_), {}};
        block.rows.resize(padded_order_ * (block.end - block.begin));
        if (!factor_diagonal(block, least_pivot)) return false;
        pack_rows(block, block.begin, block.end);

        const std::size_t first_tile = block.end / lanes_;
        const std::size_t tiles = padded_order_ / lanes_ - first_tile;
        parallel_for(tiles, threads, [&](std::size_t task) {
            const std::size_t number = first_tile + task;
            solve_tile(block, number);
            pack_rows(block, number * lanes_, (number + 1) * lanes_);
        });
        // Lower tiles are longer: they come first, so that the threads finish together.
        const std::size_t last_tile = padded_order_ / lanes_ - 1;
        parallel_for(tiles, threads, [&](std::size_t task) { update_tile(block, last_tile - task); });
    }
    return true;
}

bool CholeskyMatrix::factor_diagonal(const Block& block, double least_pivot) {
    const std::size_t width = block.end - block.begin;
    std::vector<double> square(width * width);
    for (std::size_t row = 0; row < width; ++row) {
        for (std::size_t k = 0; k <= row; ++k)
            square[row * width + k] = at(block.begin + row, block.begin + k);
    }
    if (!factor_square(square, width, least_pivot)) return false;
    for (std::size_t row = 0; row < width; ++row) {
        for (std::size_t k = 0; k <= row; ++k)
            at(block.begin + row, block.begin + k) = square[row * width + k];
    }
    return true;
}

// Layout of block.rows: [panel of rows][column in the block][row in the panel]. Different rows are different
// elements, so that tiles can be packed by different threads.
void CholeskyMatrix::pack_rows(Block& block, std::size_t begin, std::size_t end) const {
    const std::size_t width = block.end - block.begin;
    for (std::size_t row = begin; row < end; ++row) {
        const double* source = &values_[index(row, block.begin)];
        double* packed = &block.rows[row / kPanel * kPanel * width + row % kPanel];
        const std::size_t last = std::min(width, row + 1 - block.begin);  // above the diagonal L is zero
        for (std::size_t k = 0; k < last; ++k) packed[k * kPanel] = -source[k * lanes_];
    }
}

// X L_block^T = A for the tile's rows X: the block's panels from left to right.
void CholeskyMatrix::solve_tile(const Block& block, std::size_t number) {
    const std::size_t width = block.end - block.begin;
    for (std::size_t column = block.begin; column < block.end; column += kPanel) {
        const double* right = &block.rows[column * width];
        double* target = tile(number, column);
        kernels_->update_double(target, tile(number, block.begin), right, column - block.begin);
        const double* triangle = right + (column - block.begin) * kPanel;  // element (k, p) is -L[p][k]
        for (std::size_t p = 0; p < kPanel; ++p) {
            for (std::size_t lane = 0; lane < lanes_; ++lane) {
                double value = target[p * lanes_ + lane];
                for (std::size_t k = 0; k < p; ++k)
                    value += target[k * lanes_ + lane] * triangle[k * kPanel + p];
                target[p * lanes_ + lane] = value / -triangle[p * kPanel + p];
            }
        }
    }
}

// A -= X X^T for the tile's rows, over the panels up to the diagonal.
void CholeskyMatrix::update_tile(const Block& block, std::size_t number) {
    const std::size_t width = block.end - block.begin;
    for (std::size_t column = block.end; column < (number + 1) * lanes_; column += kPanel) {
        kernels_->update_double(tile(number, column), tile(number, block.begin), &block.rows[column * width],
                                width);
    }
}

}  // namespace pygolf
