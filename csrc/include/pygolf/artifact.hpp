// The packed model: a manifest and named tensors in one file. csrc/FORMAT.md specifies every byte and the
// rules A1 to A20; a FormatError begins with the rule that the file breaks.
//
//     header | manifest (zstd) | tensor table (zstd) | section | section | ...
//
// A tensor is `dense` (one section of floats), `rows` (a section of fp16 scales [R] and one of int8 codes
// [R, C]; value = float(code) * float(scale of the row)) or `factors` (a section of row factors [R], one of
// column factors [C] and one of int16 codes [R, C], with or without a trellis; pygolf/dequantize.hpp says
// what they mean). Every section has its own codec and CRC-32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pygolf/codec.hpp"
#include "pygolf/dequantize.hpp"
#include "pygolf/mapped_file.hpp"

namespace pygolf {

// Ids as stored in the file; never reused.
enum class Encoding : std::uint8_t { kDense = 0, kRows = 1, kFactors = 2 };
enum class DType : std::uint8_t { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2 };
enum class Role : std::uint8_t { kData = 0, kScales = 1, kCodes = 2, kRowFactors = 3, kColFactors = 4 };

[[nodiscard]] std::string_view encoding_name(Encoding encoding);  // "dense", "rows", "factors"
[[nodiscard]] std::string_view dtype_name(DType dtype);           // "float32", "float16", "bfloat16"
[[nodiscard]] std::string_view role_name(Role role);  // "data", "scales", "codes", "row factors"...
[[nodiscard]] std::size_t dtype_bytes(DType dtype);
// ArgumentError lists the names that exist.
[[nodiscard]] DType dtype_from_name(std::string_view name);

inline constexpr std::uint64_t kMaxElements = (std::uint64_t{1} << 31) - 1;  // of one tensor

// Steps and logarithms of `factors` for which every unit is a normal float and every value is finite.
inline constexpr float kMinStep = 0x1p-60F;
inline constexpr float kMaxStep = 0x1p47F;
inline constexpr int kMinLog = -512;
inline constexpr int kMaxLog = 511;
inline constexpr int kMaxLogSpan = 255;  // of the rows, or of the columns, of one tensor

struct SectionInfo {
    Role role = Role::kData;
    Codec codec = Codec::kRaw;
    std::uint64_t offset = 0;  // from the start of the file
    std::uint64_t stored_bytes = 0;
    std::uint32_t crc32 = 0;  // of the stored bytes
};

struct TensorInfo {
    std::string name;                  // UTF-8, 1 to 255 bytes, unique in the file
    std::vector<std::uint32_t> shape;  // 1 to 4 dimensions; rows and factors: [R, C]
    Encoding encoding = Encoding::kDense;
    DType dtype = DType::kFloat16;  // of dense
    int bits = 0;                   // of rows: codes have magnitudes of at most 2^(bits-1) - 1
    int states = 1;                 // of factors, and so are the next three: trellis states, 1 if none
    float step = 1;                 // as in FactorGrid
    std::int16_t row_offset = 0;    // what the row factors (0 to 255) lie above
    std::int16_t col_offset = 0;
    std::vector<SectionInfo>
        sections;  // dense: data; rows: scales, codes; factors: row, column factors, codes

    [[nodiscard]] std::size_t elements() const;
    [[nodiscard]] std::uint64_t stored_bytes() const;  // of all sections
};

// Collects tensors and writes them. The bytes depend on what was added, in which order, and on the version of
// libzstd; never on the number of threads or the time.
//
// Ownership: keeps copies of what is added. Thread safety: const members may run at the same time.
class ArtifactWriter {
  public:
    // `manifest` is UTF-8 text, by convention a JSON object; `zstd_level` is 1 to 22. ArgumentError else.
    explicit ArtifactWriter(std::string manifest, int zstd_level = kMaxZstdLevel);

    // `data`: row-major little-endian numbers of `dtype`. Stored raw where the codec would make it larger.
    // ArgumentError for a name, shape, size or codec that the format does not allow; nothing is added then.
    void add_dense(std::string name, DType dtype, std::vector<std::uint32_t> shape,
                   std::span<const std::byte> data, Codec codec = Codec::kZstd);

    // `codes_RC`: row-major, magnitudes at most 2^(bits-1) - 1; `scales_R`: fp16 bits, finite, not negative.
    // ArgumentError as add_dense.
    void add_rows(std::string name, std::uint32_t rows, std::uint32_t cols,
                  std::span<const std::int8_t> codes_RC, std::span<const std::uint16_t> scales_R, int bits,
                  Codec codec = Codec::kBytesZstd);

    // A matrix of codes_RC, row-major, with the logarithms and the step of `grid`. Factors are stored in the
    // codec that goes with `codec`. ArgumentError as add_dense.
    void add_factors(std::string name, std::span<const std::int16_t> codes_RC, const FactorGrid& grid,
                     Codec codec = Codec::kEntropy);

    // The whole file. Sections are encoded independently on `threads` threads (0: one a core).
    [[nodiscard]] std::vector<std::byte> serialize(int threads = 0) const;

    // What all sections take in the file, each encoded on `threads` threads (0: one a core).
    [[nodiscard]] std::uint64_t section_bytes(int threads = 0) const;

    // Writes the file under a temporary name beside `path`, syncs it and renames it; returns its size in
    // bytes. After an IoError (disk full included) an old file at `path` is untouched and no other is left.
    std::uint64_t write(const std::filesystem::path& path, int threads = 0) const;

  private:
    struct Section {
        Role role;
        Codec codec;
        std::vector<std::byte> plain;
    };
    struct Tensor {
        TensorInfo info;  // its sections are filled in by serialize()
        std::vector<Section> sections;
    };
    struct Encoded;

    void add(Tensor tensor);
    [[nodiscard]] Encoded encode(const Tensor& tensor, const Section& section, int threads) const;
    [[nodiscard]] std::vector<std::byte> assemble(std::span<const Encoded> sections) const;

    std::string manifest_;
    int zstd_level_;
    std::vector<Tensor> tensors_;
};

// Bytes that the three sections of a `factors` tensor in codec `entropy` take in a file, from up to `threads`
// threads (0: one a core). ArgumentError as ArtifactWriter::add_factors; the step does not matter.
[[nodiscard]] std::uint64_t coded_bytes(std::span<const std::int16_t> codes_RC, const FactorGrid& grid,
                                        int threads = 0);

// Reads an artifact through a memory map. Safe on hostile files: everything but the sections' content is
// checked by open(), a section's checksum and content whenever it is read.
//
// Ownership: owns the map; spans into it are valid as long as the reader lives and survive a move of it.
// Thread safety: const members may run at the same time.
class ArtifactReader {
  public:
    // Throws IoError (A1), VersionError (A3, A14, A15: made by a newer version) or another FormatError.
    static ArtifactReader open(const std::filesystem::path& path);

    [[nodiscard]] const std::filesystem::path& path() const { return file_.path(); }
    [[nodiscard]] std::uint64_t file_bytes() const { return file_.bytes().size(); }
    [[nodiscard]] const std::string& manifest() const { return manifest_; }
    [[nodiscard]] const std::vector<TensorInfo>& tensors() const { return tensors_; }
    // ArgumentError if there is no such tensor.
    [[nodiscard]] const TensorInfo& find(std::string_view name) const;

    // The members below throw ArgumentError for a tensor or section that is not there or a buffer of another
    // size than the tensor's, and ChecksumError (A8) or FormatError (A9, A18, A19) for a damaged section.

    // Of rows: codes [R, C] and the fp16 bits of scales [R].
    void codes(std::string_view name, std::span<std::int8_t> out_RC) const;
    void scales(std::string_view name, std::span<std::uint16_t> out_R) const;
    // Of factors: codes [R, C], and the logarithms of rows [R] (kRowFactors) or columns [C] (kColFactors).
    void codes(std::string_view name, std::span<std::int16_t> out_RC) const;
    [[nodiscard]] std::vector<std::int16_t> logs(std::string_view name, Role role) const;
    // A section of any tensor, decoded: int8 or int16 codes, fp16 bits of scales, factors without their
    // offset, or numbers of the tensor's dtype; `out` is aligned for them.
    void read(std::string_view name, Role role, std::span<std::byte> out) const;
    // Any tensor as row-major floats.
    void dequantize(std::string_view name, std::span<float> out) const;
    // A section's plain bytes in the map itself if they are stored raw, checked; nothing for another codec.
    // Not aligned to anything.
    [[nodiscard]] std::optional<std::span<const std::byte>> raw(std::string_view name, Role role) const;

    // Verifies every checksum and decodes every section on `threads` threads (0: one a core).
    void check(int threads = 0) const;

  private:
    ArtifactReader(MappedFile file, std::string manifest, std::vector<TensorInfo> tensors);

    [[nodiscard]] const SectionInfo& section(const TensorInfo& tensor, Role role) const;
    // A section, decoded.
    [[nodiscard]] std::vector<std::byte> plain(const TensorInfo& tensor, Role role) const;
    // The section's stored bytes, after a look at their checksum.
    [[nodiscard]] std::span<const std::byte> stored(const TensorInfo& tensor,
                                                    const SectionInfo& section) const;

    MappedFile file_;
    std::string manifest_;
    std::vector<TensorInfo> tensors_;
    std::map<std::string, std::size_t, std::less<>> index_;  // name -> position in tensors_
};

}  // namespace pygolf
