// Cholesky factorisation of a symmetric positive definite matrix in double precision, blocked and threaded.
#pragma once

#include <cstddef>
#include <vector>

#include "simd_kernels.hpp"

namespace pygolf {

// Holds the lower triangle of a symmetric matrix A, then its factor L with A = L L^T.
//
// Rows are grouped in tiles (see simd_kernels.hpp). The order is padded to a whole number of tiles and panels
// with an identity matrix, whose factor is the identity again, so that no loop has a remainder. Thread
// safety: like an ordinary container; factor() uses threads of its own.
class CholeskyMatrix {
  public:
    CholeskyMatrix(std::size_t order, const Kernels& kernels);

    // Element of the lower triangle, row >= column. What lies above it is never read.
    [[nodiscard]] double& at(std::size_t row, std::size_t column) { return values_[index(row, column)]; }
    [[nodiscard]] double at(std::size_t row, std::size_t column) const { return values_[index(row, column)]; }

    // Replaces A by L. False, with the contents spoiled, as soon as a pivot (square of a diagonal element of
    // L) is below least_pivot or not a number. The result does not depend on the number of threads (0: one a
    // processor).
    [[nodiscard]] bool factor(double least_pivot, int threads);

  private:
    // Columns [begin, end) being eliminated, and their rows of L, negated and packed for
    // Kernels::update_double.
    struct Block {
        std::size_t begin;
        std::size_t end;
        std::vector<double> rows;
    };

    [[nodiscard]] std::size_t index(std::size_t row, std::size_t column) const {
        return (row / lanes_ * padded_order_ + column) * lanes_ + row % lanes_;
    }
    [[nodiscard]] double* tile(std::size_t number, std::size_t column) {
        return &values_[(number * padded_order_ + column) * lanes_];
    }

    [[nodiscard]] bool factor_diagonal(const Block& block, double least_pivot);
    void pack_rows(Block& block, std::size_t begin, std::size_t end) const;
    void solve_tile(const Block& block, std::size_t number);
    void update_tile(const Block& block, std::size_t number);

    const Kernels* kernels_;
    std::size_t lanes_;
    std::size_t padded_order_;
    std::vector<double> values_;
};

}  // namespace pygolf
