// Adaptive entropy coder for integer code tensors [R, C]. csrc/FORMAT.md, "Entropy-coded codes", is the
// specification.
//
// A code is modelled as a sample of a bell curve whose spread is (row spread) x (column spread). Both are
// stored as integer classes, an eighth of an octave apart, wherever that saves more bytes than it costs; what
// the caller already stores beside the codes (scales, factors) can predict them. That is no longer than
// learning them from decoded codes would be, and lets streams be independent. Each spread has a table of
// frequencies that starts as the bell curve and learns from the codes as they are decoded, so that clipping
// peaks, gaps at small codes or heavier tails cost little. The tables drive a range asymmetric numeral system
// (rANS: Duda, arXiv 1311.2540). Codes beyond a table are escaped, so any 32-bit code can be stored.
//
// Model and coder use integers only: the same codes give the same bytes on every machine and compiler. A
// tensor is cut into streams that know nothing of one another and may be decoded on different threads; the
// cut does not depend on the number of threads.
//
// Codes of a trellis (pygolf/trellis.hpp) come from two quantizers, whose codes have different curves: each
// has its own tables, and a stream holds whole rows, so that the decoder always knows which one is next.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pygolf {

// Codes a stream, as a power of two. Larger streams learn longer, smaller ones keep more threads busy.
inline constexpr int kMinStreamBits = 12;
inline constexpr int kMaxStreamBits = 23;

// No input decodes to more codes a byte: what a reader checks before it allocates a tensor.
inline constexpr std::size_t kMaxCodesPerByte = std::size_t{1} << 15;

struct EntropyOptions {
    int stream_bits = 18;  // kMinStreamBits to kMaxStreamBits
    int threads = 0;       // 0: one a core
};

// What is known beside the codes. The decoder needs exactly what the encoder had.
struct SideInformation {
    // Integer logarithms, in any unit, of numbers that follow the spread of rows [R] and columns [C], for
    // example of the stored scales. Empty: nothing is known.
    std::span<const std::int16_t> rows;
    std::span<const std::int16_t> cols;
    // Of the trellis that made the codes: 1 (none), 4 or 8. Columns with an odd logarithm are not in it.
    int states = 1;
};

// The bytes of `codes_RC`, row-major; none for an empty tensor. Working memory: less than twice the tensor,
// and 4 bytes a code of a stream a thread. ArgumentError for sizes that do not fit the shape and for options
// out of range.
[[nodiscard]] std::vector<std::uint8_t> encode_codes(std::span<const std::int8_t> codes_RC, std::size_t rows,
                                                     std::size_t cols, const EntropyOptions& options = {},
                                                     const SideInformation& side = {});
[[nodiscard]] std::vector<std::uint8_t> encode_codes(std::span<const std::int16_t> codes_RC, std::size_t rows,
                                                     std::size_t cols, const EntropyOptions& options = {},
                                                     const SideInformation& side = {});
[[nodiscard]] std::vector<std::uint8_t> encode_codes(std::span<const std::int32_t> codes_RC, std::size_t rows,
                                                     std::size_t cols, const EntropyOptions& options = {},
                                                     const SideInformation& side = {});

// Reverses encode_codes on up to `threads` threads (0: one a core). FormatError E1 to E6 if the bytes are not
// what encode_codes writes for this shape, or if a code does not fit `out_RC`; what is in `out_RC` is then
// unspecified. Only a checksum notices all damage: the low bits of wide codes have no redundancy.
void decode_codes(std::span<const std::uint8_t> bytes, std::size_t rows, std::size_t cols,
                  std::span<std::int8_t> out_RC, const SideInformation& side = {}, int threads = 0);
void decode_codes(std::span<const std::uint8_t> bytes, std::size_t rows, std::size_t cols,
                  std::span<std::int16_t> out_RC, const SideInformation& side = {}, int threads = 0);
void decode_codes(std::span<const std::uint8_t> bytes, std::size_t rows, std::size_t cols,
                  std::span<std::int32_t> out_RC, const SideInformation& side = {}, int threads = 0);

}  // namespace pygolf
