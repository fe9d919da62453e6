// Feedback from coded tiles to a later one: a product of two slabs in shared memory, in full float32.
#pragma once

#include <cuda_pipeline.h>

#include "rd_solve.hpp"

namespace pygolf::cuda {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kDepth = 32;  // rows of the slabs that a stage holds
constexpr int kPatch = 4;   // each thread has a patch of 4 x 4 elements of the tile
static_assert(kTileRows == kWarps * kPatch && kTileColumns == 32 * kPatch);

// Rows of a matrix in device memory, from the tile's first column on.
struct Slab {
    const float* data;
    std::int64_t pitch;
    int columns;  // that exist

    [[nodiscard]] __device__ bool has_vectors() const {
        return pitch % 4 == 0 && columns % 4 == 0 && reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
    }
};

struct Stage {
    float left[kDepth][kTileRows];
    float right[kDepth][kTileColumns];
};

// Copies `vector` floats at a time from rows [first, depth) of the slab; zeros where there is nothing.
template <int vector, int columns>
__device__ void fetch(float (&stage)[kDepth][columns], const Slab& slab, int first, int depth) {
    constexpr int row_vectors = columns / vector;
    for (int i = static_cast<int>(threadIdx.x); i < kDepth * row_vectors; i += kThreads) {
        const int row = i / row_vectors;
        const int column = i % row_vectors * vector;
        const bool exists = first + row < depth && column < slab.columns;
        const float* from = exists ? slab.data + (first + row) * slab.pitch + column : slab.data;
        __pipeline_memcpy_async(&stage[row][column], from, vector * sizeof(float),
                                exists ? 0 : vector * sizeof(float));
    }
}

template <int columns>
__device__ void fetch(float (&stage)[kDepth][columns], const Slab& slab, int first, int depth) {
    if (slab.has_vectors()) {
        fetch<4>(stage, slab, first, depth);
    } else {
        fetch<1>(stage, slab, first, depth);
    }
}

__device__ inline void subtract_stage(float (&patch)[kPatch][kPatch], const Stage& stage) {
    const int row = static_cast<int>(threadIdx.x) / 32 * kPatch;
    const int column = static_cast<int>(threadIdx.x) % 32 * kPatch;
#pragma unroll 8
    for (int k = 0; k < kDepth; ++k) {
        const float4 left = *reinterpret_cast<const float4*>(&stage.left[k][row]);
        const float4 right = *reinterpret_cast<const float4*>(&stage.right[k][column]);
        const float a[kPatch] = {left.x, left.y, left.z, left.w};
        const float b[kPatch] = {right.x, right.y, right.z, right.w};
#pragma unroll
        for (int i = 0; i < kPatch; ++i) {
#pragma unroll
            for (int j = 0; j < kPatch; ++j) patch[i][j] = fmaf(-a[i], b[j], patch[i][j]);
        }
    }
}

// patch_ij -= sum over k < depth of left_ki right_kj. All threads of the block take part.
__device__ inline void subtract_product(float (&patch)[kPatch][kPatch], const Slab& left, const Slab& right,
                                        int depth, Stage (&stages)[2]) {
    const auto start = [&](int first) {
        Stage& stage = stages[first / kDepth % 2];
        fetch(stage.left, left, first, depth);
        fetch(stage.right, right, first, depth);
        __pipeline_commit();
    };
    if (depth > 0) start(0);
    for (int first = 0; first < depth; first += kDepth) {
        if (first + kDepth < depth) {
            start(first + kDepth);
            __pipeline_wait_prior(1);
        } else {
            __pipeline_wait_prior(0);
        }
        __syncthreads();
        subtract_stage(patch, stages[first / kDepth % 2]);
        __syncthreads();
    }
}

}  // namespace pygolf::cuda
