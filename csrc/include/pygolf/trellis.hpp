// The trellis of dependent quantization: which of two interleaved quantizers a code belongs to follows from
// the codes before it in its row (trellis-coded quantization: Marcellin and Fischer, 1990; dependent scalar
// quantization: Schwarz et al., 2019). Solver, codec and dequantization use this one table.
//
// Quantizer 0 has the even multiples of a unit, 2k, quantizer 1 the odd ones, 2k + 1. A row starts in state
// 0; the upper half of the states uses quantizer 1. One state means no trellis: code k stands for k units.
//
// A trellis wastes codes that are nearly all zero. So some columns of a matrix may be plain: they always use
// quantizer 0 and leave the state alone. Those are the ones whose stored logarithm is odd.
//
// Thread safety: pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace pygolf {

// Next state by state and parity of the code: Ungerboeck's codes in systematic feedback form.
using TrellisStep = std::array<std::uint8_t, 2>;
inline constexpr std::array<TrellisStep, 1> kPlainTrellis = {{{0, 0}}};
inline constexpr std::array<TrellisStep, 4> kTrellis4 = {{{0, 2}, {2, 0}, {1, 3}, {3, 1}}};
inline constexpr std::array<TrellisStep, 8> kTrellis8 = {
    {{0, 2}, {2, 0}, {4, 6}, {6, 4}, {5, 7}, {7, 5}, {1, 3}, {3, 1}}};

[[nodiscard]] constexpr bool is_trellis_states(int states) {
    return states == 1 || states == 4 || states == 8;
}

// The table for a number of states that is_trellis_states() accepts.
[[nodiscard]] constexpr std::span<const TrellisStep> trellis(int states) {
    if (states == 8) return kTrellis8;
    if (states == 4) return kTrellis4;
    return kPlainTrellis;
}

[[nodiscard]] constexpr bool in_trellis(int col_log) { return col_log % 2 == 0; }

// Walks along a row from its first code. `inside`: whether the column of the code is in the trellis.
class TrellisWalk {
  public:
    explicit constexpr TrellisWalk(int states)
        : steps_(trellis(states)), upper_(static_cast<std::uint32_t>(states + 1) / 2) {}

    // Of the next code: 0 or 1.
    [[nodiscard]] constexpr std::uint32_t quantizer(bool inside) const {
        return static_cast<std::uint32_t>(inside) & static_cast<std::uint32_t>(state_ >= upper_);
    }
    constexpr void advance(std::int64_t code, bool inside) {
        const std::uint32_t next = steps_[state_][static_cast<std::uint64_t>(code) & 1];
        state_ = inside ? next : state_;
    }
    constexpr void restart() { state_ = 0; }

  private:
    std::span<const TrellisStep> steps_;
    std::uint32_t upper_;  // states from here on use quantizer 1
    std::uint32_t state_ = 0;
};

// Units of a code, exact in float32 for codes of 16 bits.
[[nodiscard]] constexpr std::int32_t trellis_level(std::int32_t code, std::uint32_t quantizer, int states) {
    return states == 1 ? code : 2 * code + static_cast<std::int32_t>(quantizer);
}

}  // namespace pygolf
