#include "pygolf/codec.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include "byte_cursor.hpp"
#include "pygolf/bitpack.hpp"
#include "pygolf/error.hpp"
#include "pygolf/float16.hpp"
#include "zstd.hpp"

namespace pygolf {
namespace {

using Bytes = std::vector<std::byte>;
using View = std::span<const std::byte>;
using Buffer = std::span<std::byte>;

template <typename T>
std::span<const T> as(View bytes) {
    return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
}

template <typename T>
std::span<T> as_writable(Buffer bytes) {
    return {reinterpret_cast<T*>(bytes.data()), bytes.size() / sizeof(T)};
}

// --- raw ---

StoredSize raw_size(const SectionContext& context) { return {context.plain_bytes, true}; }

Bytes raw_encode(View plain, const SectionContext&, int) { return {plain.begin(), plain.end()}; }

void raw_decode(View stored, const SectionContext&, Buffer plain) {
    std::ranges::copy(stored, plain.begin());
}

// --- bitpack ---

StoredSize bitpack_size(const SectionContext& context) {
    return {packed_bytes(context.plain_bytes, context.bits), true};
}

Bytes bitpack_encode(View plain, const SectionContext& context, int) {
    Bytes packed(packed_bytes(plain.size(), context.bits));
    pack_codes(as<std::int8_t>(plain), context.bits, as_writable<std::uint8_t>(packed));
    return packed;
}

void bitpack_decode(View stored, const SectionContext& context, Buffer plain) {
    unpack_codes(as<std::uint8_t>(stored), context.bits, as_writable<std::int8_t>(plain));
    const auto used = plain.size() % 8 * static_cast<std::size_t>(context.bits) % 8;  // bits of the last byte
    if (used != 0 && std::to_integer<unsigned>(stored.back()) >> used != 0) {
        fail<FormatError>("[A18] ", context.where, ": bits after the last code are set, expected zero; ",
                          "make the artifact again");
    }
}

// --- one zstd frame of byte planes ---

// A block of at most 128 KiB takes at least four bytes of a frame: three of header and one of content.
constexpr std::size_t kMaxZstdExpansion = (std::size_t{128} << 10) / 4;

StoredSize zstd_size(const SectionContext& context) {
    return {(context.plain_bytes + kMaxZstdExpansion - 1) / kMaxZstdExpansion, false};
}

// First byte 0 of every number, then byte 1, and so on: exponents compress well, low fraction bits do not.
Bytes split_planes(View plain, std::size_t element_bytes) {
    const std::size_t count = plain.size() / element_bytes;
    Bytes planes(plain.size());
    for (std::size_t i = 0; i < plain.size(); ++i) {
        planes[i % element_bytes * count + i / element_bytes] = plain[i];
    }
    return planes;
}

void join_planes(View planes, std::size_t element_bytes, Buffer plain) {
    const std::size_t count = plain.size() / element_bytes;
    for (std::size_t i = 0; i < plain.size(); ++i) {
        plain[i] = planes[i % element_bytes * count + i / element_bytes];
    }
}

Bytes zstd_encode(View plain, const SectionContext& context, int level) {
    if (context.element_bytes == 1) return zstd_compress(plain, level);
    return zstd_compress(split_planes(plain, context.element_bytes), level);
}

void decompress(View stored, const SectionContext& context, Buffer plain) {
    if (const auto problem = zstd_decompress(stored, plain)) {
        fail<FormatError>("[A9] ", context.where, ": ", *problem, ", expected ", plain.size(), " bytes",
                          kDamaged);
    }
}

void zstd_decode(View stored, const SectionContext& context, Buffer plain) {
    if (context.element_bytes == 1) return decompress(stored, context, plain);
    Bytes planes(plain.size());
    decompress(stored, context, planes);
    join_planes(planes, context.element_bytes, plain);
}

// --- adaptive entropy coder ---

StoredSize entropy_size(const SectionContext& context) {
    const std::size_t numbers = context.plain_bytes / context.element_bytes;
    return {(numbers + kMaxCodesPerByte - 1) / kMaxCodesPerByte, false};
}

template <typename Code>
Bytes encode_as(std::span<const Code> codes, const SectionContext& context) {
    const auto coded =
        encode_codes(codes, context.rows, context.cols, {.threads = context.threads}, context.side);
    const auto bytes = std::as_bytes(std::span(coded));
    return {bytes.begin(), bytes.end()};
}

// Factors lie on a grid of their own, often of even numbers: its step, and then how many steps each one is.
Bytes encode_factors(std::span<const std::uint8_t> factors, const SectionContext& context) {
    int step = std::reduce(factors.begin(), factors.end(), 0, std::gcd<int, int>);
    if (step == 0) step = 1;
    std::vector<std::int16_t> steps(factors.size());
    std::ranges::transform(factors, steps.begin(),
                           [&](int factor) { return static_cast<std::int16_t>(factor / step); });
    Bytes bytes = encode_as(std::span<const std::int16_t>(steps), context);
    bytes.insert(bytes.begin(), static_cast<std::byte>(step));
    return bytes;
}

Bytes entropy_encode(View plain, const SectionContext& context, int) {
    if (context.content == Content::kCodes) return encode_as(as<std::int8_t>(plain), context);
    if (context.content == Content::kFactors) return encode_factors(as<std::uint8_t>(plain), context);
    return encode_as(as<std::int16_t>(plain), context);
}

template <typename Code>
void decode_as(View stored, const SectionContext& context, std::span<Code> codes) {
    try {
        decode_codes(as<std::uint8_t>(stored), context.rows, context.cols, codes, context.side, 1);
    } catch (const FormatError& error) {
        fail<FormatError>("[A9] ", context.where, ": ", error.what());
    }
}

void decode_factors(View stored, const SectionContext& context, std::span<std::uint8_t> factors) {
    std::vector<std::int16_t> steps(factors.size());
    decode_as(stored.subspan(1), context, std::span(steps));
    const int step = std::to_integer<int>(stored.front());
    const auto [low, high] = std::ranges::minmax(steps);
    if (step == 0 || low < 0 || high * step > 255) {
        fail<FormatError>("[A9] ", context.where, ": factors are ", low, " to ", high, " times ", step,
                          ", expected 0 to 255 and a step of 1 or more", kDamaged);
    }
    std::ranges::transform(steps, factors.begin(),
                           [&](int steps_up) { return static_cast<std::uint8_t>(steps_up * step); });
}

void entropy_decode(View stored, const SectionContext& context, Buffer plain) {
    if (context.content == Content::kCodes)
        return decode_as(stored, context, as_writable<std::int8_t>(plain));
    if (context.content == Content::kFactors)
        return decode_factors(stored, context, as_writable<std::uint8_t>(plain));
    decode_as(stored, context, as_writable<std::int16_t>(plain));
}

// --- the table: a new codec is one more row here and one more id in the header ---

bool any_content(Content) { return true; }
bool only_codes(Content content) { return content == Content::kCodes; }
bool all_but_codes(Content content) { return content != Content::kCodes; }
bool all_but_values(Content content) { return content != Content::kValues; }

constexpr std::array kCodecs = {
    CodecInfo{Codec::kRaw, "raw", any_content, Codec::kRaw, raw_size, raw_encode, raw_decode},
    CodecInfo{Codec::kBitpack, "bitpack", only_codes, Codec::kRaw, bitpack_size, bitpack_encode,
              bitpack_decode},
    CodecInfo{Codec::kBytesZstd, "bytes-zstd", only_codes, Codec::kZstd, zstd_size, zstd_encode, zstd_decode},
    CodecInfo{Codec::kZstd, "zstd", all_but_codes, Codec::kZstd, zstd_size, zstd_encode, zstd_decode},
    CodecInfo{Codec::kEntropy, "entropy", all_but_values, Codec::kEntropy, entropy_size, entropy_encode,
              entropy_decode},
};

std::optional<Problem> codes_problem(std::span<const std::int8_t> codes, int bits) {
    const std::size_t bad = first_code_out_of_range(codes, bits);
    if (bad == codes.size()) return std::nullopt;
    return Problem{"A18", message("code ", bad, " is ", int{codes[bad]}, ", expected a magnitude of at most ",
                                  max_code(bits), " for ", bits, " bits")};
}

// Finite and not negative: the fp16 bits of 0 to 65504 are the integers below those of infinity.
std::optional<Problem> scales_problem(View scales) {
    for (std::size_t i = 0; i < scales.size(); i += sizeof(std::uint16_t)) {
        std::uint16_t scale = 0;
        std::memcpy(&scale, &scales[i], sizeof scale);
        if (scale >= kFloat16Infinity) {
            return Problem{"A19", message("scale of row ", i / sizeof scale, " is ", from_float16(scale),
                                          ", expected 0 to 65504 without a sign")};
        }
    }
    return std::nullopt;
}

}  // namespace

std::span<const CodecInfo> codecs() { return kCodecs; }

const CodecInfo* find_codec(std::uint8_t id) {
    const auto row = std::ranges::find(kCodecs, Codec{id}, &CodecInfo::codec);
    return row == kCodecs.end() ? nullptr : &*row;
}

const CodecInfo& codec_info(Codec codec) {
    const auto id = static_cast<std::uint8_t>(codec);
    if (const CodecInfo* info = find_codec(id)) return *info;
    fail<ArgumentError>("codec id is ", int{id}, ", expected 0 to ", kCodecs.size() - 1);
}

Codec codec_from_name(std::string_view name) {
    std::string known;
    for (const CodecInfo& info : kCodecs) {
        if (info.name == name) return info.codec;
        known += message(known.empty() ? "'" : ", '", info.name, "'");
    }
    fail<ArgumentError>("codec is '", name, "', expected one of ", known);
}

void check_stored_size(Codec codec, std::uint64_t stored_bytes, const SectionContext& context) {
    const auto [bytes, exact] = codec_info(codec).stored_size(context);
    if (stored_bytes < bytes || (exact && stored_bytes > bytes)) {
        fail<FormatError>("[A17] ", context.where, ": ", stored_bytes, " stored bytes, expected ",
                          exact ? "" : "at least ", bytes, " for ", context.plain_bytes, " bytes in codec '",
                          codec_info(codec).name, "'; copy or make the artifact again");
    }
}

std::optional<Problem> plain_problem(std::span<const std::byte> plain, const SectionContext& context) {
    if (context.content == Content::kCodes) return codes_problem(as<std::int8_t>(plain), context.bits);
    if (context.content == Content::kScales) return scales_problem(plain);
    return std::nullopt;
}

void check_plain(std::span<const std::byte> plain, const SectionContext& context) {
    if (const auto problem = plain_problem(plain, context)) {
        fail<FormatError>("[", problem->rule, "] ", context.where, ": ", problem->text,
                          "; make the artifact again");
    }
}

void decode_section(Codec codec, std::span<const std::byte> stored, const SectionContext& context,
                    std::span<std::byte> plain) {
    check_stored_size(codec, stored.size(), context);
    codec_info(codec).decode(stored, context, plain);
    check_plain(plain, context);
}

}  // namespace pygolf
