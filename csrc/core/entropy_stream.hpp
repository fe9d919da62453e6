// One stream of entropy-coded codes: a rANS state, its words, and raw bits. csrc/FORMAT.md, "Entropy-coded
// codes", is the specification.
//
//     state (8 bytes) | words, 4 bytes each, read forwards ->  <- raw bits, bytes read backwards
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace pygolf::entropy {

// Codes are handled in runs of kRun, the last one shorter; `begin` counts from the start of the stream.
inline constexpr std::size_t kRun = 128;
using FillClasses = std::function<void(std::size_t begin, std::span<std::uint8_t> classes)>;
using ReadCodes = std::function<void(std::size_t begin, std::span<std::int32_t> codes)>;
using WriteCodes = std::function<void(std::size_t begin, std::span<const std::int32_t> codes)>;

struct StreamModel {
    int learning_shift =
        0;  // a symbol adds 1 << learning_shift to a table that starts with a sum of about 2^16
    // Of codes with a trellis, whose streams begin with a row:
    int states = 1;
    std::span<const std::uint8_t> inside_C{};  // 1: the column is in the trellis
    std::int32_t centre = 0;                   // what a caller took off every code
};

[[nodiscard]] std::vector<std::uint8_t> encode_stream(std::size_t count, const StreamModel& model,
                                                      const FillClasses& classes, const ReadCodes& codes);

// FormatError E3 (ends early), E4 (is not used up) or E5 (a code has more than 32 bits).
void decode_stream(std::span<const std::uint8_t> bytes, std::size_t count, const StreamModel& model,
                   const FillClasses& classes, const WriteCodes& codes);

}  // namespace pygolf::entropy
