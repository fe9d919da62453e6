// Codecs: how the bytes of one artifact section become fewer, and back. csrc/FORMAT.md, "Codecs".
//
// The codecs that exist are the rows of one table in csrc/core/codec.cpp. A codec sees a section's plain
// bytes together with what else the file says about the tensor (SectionContext), the same when it writes and
// when it reads, so it may use shape, bits, scales and factors as side information.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pygolf/entropy.hpp"

namespace pygolf {

// Ids as stored in the file; never reused.
enum class Codec : std::uint8_t {
    kRaw = 0,        // the plain bytes
    kBitpack = 1,    // int8 codes only: pygolf/bitpack.hpp
    kBytesZstd = 2,  // int8 codes only: one byte a code in one zstd frame
    kZstd = 3,       // all but int8 codes: byte planes in one zstd frame
    kEntropy = 4,    // all but values: pygolf/entropy.hpp
};

inline constexpr int kMinZstdLevel = 1;
inline constexpr int kMaxZstdLevel = 22;

// What is in a section: numbers of a dense tensor; int8 or int16 codes; fp16 scales; u8 factors.
enum class Content { kValues, kCodes, kWideCodes, kScales, kFactors };

// A section, as its codec sees it.
struct SectionContext {
    std::string where;  // what messages call it, e.g. "model.golf: tensor 'a', section codes"
    Content content = Content::kValues;
    std::size_t plain_bytes = 0;    // decoded size
    std::size_t element_bytes = 1;  // size of one number
    // Of all but values, [rows, cols]; scales and factors are one row:
    std::size_t rows = 0;
    std::size_t cols = 0;
    int bits = 0;          // of int8 codes: magnitudes are at most max_code(bits)
    SideInformation side;  // of codes
    int threads = 1;       // that encoding may use
};

// A broken rule of csrc/FORMAT.md, and how: "code 3 is 40, expected ...".
struct Problem {
    std::string_view rule;
    std::string text;
};

// Smallest stored size that can decode to a section, and whether it is the only one: what a reader checks
// before it allocates anything for the section.
struct StoredSize {
    std::size_t bytes = 0;
    bool exact = false;
};

struct CodecInfo {
    Codec codec;
    std::string_view name;  // in the Python interface and on screen
    bool (*holds)(Content content);
    Codec side_codec;  // what a writer gives scales and factors beside codes in this codec
    StoredSize (*stored_size)(const SectionContext& context);
    std::vector<std::byte> (*encode)(std::span<const std::byte> plain, const SectionContext& context,
                                     int zstd_level);
    void (*decode)(std::span<const std::byte> stored, const SectionContext& context,
                   std::span<std::byte> plain);
};

// The table of all codecs, by rising id.
[[nodiscard]] std::span<const CodecInfo> codecs();
// The row of an id found in a file, or nullptr if this build does not know it.
[[nodiscard]] const CodecInfo* find_codec(std::uint8_t id);
// The row of a codec that exists.
[[nodiscard]] const CodecInfo& codec_info(Codec codec);
// The codec of that name; ArgumentError lists the names that exist.
[[nodiscard]] Codec codec_from_name(std::string_view name);

// FormatError A17 unless `stored_bytes` bytes in this codec can decode to the section.
void check_stored_size(Codec codec, std::uint64_t stored_bytes, const SectionContext& context);

// What is wrong with a section's plain bytes: A18 codes out of range for their width, A19 scales that are
// negative or not finite. The writer refuses them and the reader rejects them.
[[nodiscard]] std::optional<Problem> plain_problem(std::span<const std::byte> plain,
                                                   const SectionContext& context);

// Throws that problem as a FormatError.
void check_plain(std::span<const std::byte> plain, const SectionContext& context);

// Decodes a section into `plain`, which has context.plain_bytes bytes, and checks it with check_plain.
// FormatError A9 or A18 if the stored bytes are not what the codec writes.
void decode_section(Codec codec, std::span<const std::byte> stored, const SectionContext& context,
                    std::span<std::byte> plain);

}  // namespace pygolf
