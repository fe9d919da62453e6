// The trellis, on one warp: every state's survivor has its own weights, with its own errors fed back.
//
// Legend: T columns a lane, S states.
#pragma once

#include <utility>

#include "pygolf/trellis.hpp"
#include "rd_coding.cuh"

namespace pygolf::cuda {

struct Branch {
    int from;         // state
    int value_class;  // of the multiples it takes, modulo 4: 2 k + (state in the upper half), k of one parity
};

// The two branches into a state, that from the lower state first.
template <int states>
consteval Branch branch_into(int state, int which) {
    for (int from = 0; from < states; ++from) {
        for (int parity = 0; parity < 2; ++parity) {
            if (trellis(states)[from][parity] == state && which-- == 0) {
                return {from, 2 * parity + (from >= states / 2 ? 1 : 0)};
            }
        }
    }
    return {};
}

template <int states>
struct Survivors {
    float weight_ST[states][kLaneColumns];
    float metric_S[states];      // sum of costs in the tile; the same in all lanes
    unsigned classes_S[states];  // of the lane's coded columns, 2 bits each
};

// What all survivors share at a column.
struct Column {
    float step;
    float target;
    float price;
    float inverse_diagonal;
    unsigned classes_unit;  // 1 at the column's two bits in the lane that has it, 0 in others
};

// The error that a branch makes, and the metric with it.
struct Cost {
    float error;
    float metric;
};

__device__ inline float square_cost(float error, float multiple, const Column& column) {
    return fmaf(error, error, column.price * multiple * multiple);
}

template <Branch branch, int states>
__device__ Cost cost_of(const Survivors<states>& old, float weight, const Column& column) {
    const float multiple = nearest_in_class(weight * column.target, branch.value_class);
    const float error = fmaf(-multiple, column.step, weight) * column.inverse_diagonal;
    return {error, old.metric_S[branch.from] + square_cost(error, multiple, column)};
}

// The better of the two branches into a state becomes its survivor.
template <int state, int states>
__device__ void survive(Survivors<states>& taken, const Survivors<states>& old,
                        const float (&weight_S)[states], const Column& column, int t,
                        const float (&feedback_T)[kLaneColumns]) {
    constexpr Branch low = branch_into<states>(state, 0);
    constexpr Branch high = branch_into<states>(state, 1);
    const Cost low_cost = cost_of<low>(old, weight_S[low.from], column);
    const Cost high_cost = cost_of<high>(old, weight_S[high.from], column);
    const bool is_high = high_cost.metric < low_cost.metric;
    const float error = is_high ? high_cost.error : low_cost.error;
    taken.metric_S[state] = is_high ? high_cost.metric : low_cost.metric;
    taken.classes_S[state] = is_high ? old.classes_S[high.from] + high.value_class * column.classes_unit
                                     : old.classes_S[low.from] + low.value_class * column.classes_unit;
#pragma unroll
    for (int later = 0; later < kLaneColumns; ++later) {
        const float weight = is_high ? old.weight_ST[high.from][later] : old.weight_ST[low.from][later];
        taken.weight_ST[state][later] = later < t ? weight : fmaf(-error, feedback_T[later], weight);
    }
}

// A plain column has the multiples of quantizer 0 in every state, and the state stays.
template <int states>
__device__ void extend_plain(Survivors<states>& survivors, const Column& column, int t, int owner,
                             const float (&feedback_T)[kLaneColumns]) {
#pragma unroll
    for (int state = 0; state < states; ++state) {
        const float weight = __shfl_sync(kAllLanes, survivors.weight_ST[state][t], owner);
        const float multiple = 2.0f * rintf(weight * column.target * 0.5f);
        const float error = fmaf(-multiple, column.step, weight) * column.inverse_diagonal;
        survivors.metric_S[state] += square_cost(error, multiple, column);
        survivors.classes_S[state] +=
            (static_cast<unsigned>(static_cast<int>(multiple)) & 3u) * column.classes_unit;
#pragma unroll
        for (int later = t; later < kLaneColumns; ++later) {
            survivors.weight_ST[state][later] =
                fmaf(-error, feedback_T[later], survivors.weight_ST[state][later]);
        }
    }
}

template <int states, int... state>
__device__ void extend(Survivors<states>& survivors, const Column& column, int t, int owner,
                       const float (&feedback_T)[kLaneColumns], std::integer_sequence<int, state...>) {
    const float weight_S[states] = {__shfl_sync(kAllLanes, survivors.weight_ST[state][t], owner)...};
    Survivors<states> taken;
    (survive<state>(taken, survivors, weight_S, column, t, feedback_T), ...);
    survivors = taken;
}

template <int states>
__device__ Survivors<states> start_in(int state, const RowPart& row) {
    Survivors<states> survivors;
#pragma unroll
    for (int s = 0; s < states; ++s) {
        survivors.metric_S[s] = s == state ? 0.0f : CUDART_INF_F;
        survivors.classes_S[s] = 0;
#pragma unroll
        for (int t = 0; t < kLaneColumns; ++t) survivors.weight_ST[s][t] = row.weight_T[t];
    }
    return survivors;
}

// Moves the survivor with the least metric to the row; returns its state.
template <int states>
__device__ int decide(const Survivors<states>& survivors, RowPart& row) {
    int best = 0;
    float least = survivors.metric_S[0];
#pragma unroll
    for (int s = 0; s < states; ++s) {
        if (s == 0 || survivors.metric_S[s] < least) {
            best = s;
            least = survivors.metric_S[s];
            row.classes = survivors.classes_S[s];
#pragma unroll
            for (int t = 0; t < kLaneColumns; ++t) row.weight_T[t] = survivors.weight_ST[s][t];
        }
    }
    return best;
}

// Codes the row's columns in the tile from a state on; returns the state after them.
template <int states>
__device__ int code_trellis(RowPart& row, const Coefficients& coefficients, int state, int lane) {
    Survivors<states> survivors = start_in<states>(state, row);
#pragma unroll
    for (int t = 0; t < kLaneColumns; ++t) {
        const int end = min(32, row.columns - 32 * t);
        for (int owner = 0; owner < end; ++owner) {
            const Column column{
                __shfl_sync(kAllLanes, row.step_T[t], owner), __shfl_sync(kAllLanes, row.target_T[t], owner),
                __shfl_sync(kAllLanes, row.price_T[t], owner),
                __shfl_sync(kAllLanes, row.inverse_diagonal_T[t], owner), lane == owner ? 1u << (2 * t) : 0u};
            float feedback_T[kLaneColumns];
#pragma unroll
            for (int later = t; later < kLaneColumns; ++later) {
                feedback_T[later] = coefficients[32 * t + owner][lane + 32 * later];
            }
            if (__shfl_sync(kAllLanes, row.is_plain_T[t], owner)) {
                extend_plain(survivors, column, t, owner, feedback_T);
            } else {
                extend(survivors, column, t, owner, feedback_T, std::make_integer_sequence<int, states>{});
            }
        }
    }
    return decide(survivors, row);
}

}  // namespace pygolf::cuda
