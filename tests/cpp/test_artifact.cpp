// Artifacts from C++: golden files, what the writer adds to them, and the pieces below. tests/artifact has
// more.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "../../csrc/core/atomic_file.hpp"
#include "../../csrc/core/crc32.hpp"
#include "../../csrc/core/parallel.hpp"
#include "../../csrc/core/utf8.hpp"
#include "pygolf/artifact.hpp"
#include "pygolf/error.hpp"

namespace pygolf {
namespace {

namespace fs = std::filesystem;

const fs::path kGolden = PYGOLF_GOLDEN_DIR;

// A file of a test's own that is removed with it.
class ArtifactFile : public testing::Test {
  protected:
    ArtifactFile()
        : path_(fs::path(testing::TempDir()) / ("pygolf-artifact-" + std::to_string(::getpid()) + ".golf")) {}
    ~ArtifactFile() override { fs::remove(path_); }

    const fs::path path_;
};

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

// The class of an error and its message, as the names of the golden bad files spell them.
std::pair<std::string, std::string> error_of(const fs::path& path) {
    try {
        ArtifactReader::open(path).check(1);
    } catch (const ChecksumError& error) {
        return {"ChecksumError", error.what()};
    } catch (const VersionError& error) {
        return {"VersionError", error.what()};
    } catch (const FormatError& error) {
        return {"FormatError", error.what()};
    }
    return {"none", ""};
}

TEST(Artifact, GoldenFileGivesItsValues) {
    const auto reader = ArtifactReader::open(kGolden / "good/made_by_hand.golf");
    const std::vector<float> rows = {0.5F, -0.5F, 15.5F, -15.5F, 0, 10, -12, 4, 6, -6};
    const std::vector<float> dense = {1, -2, 0.5F, 0, 96, -0.125F};
    ASSERT_EQ(reader.tensors().size(), 8U);
    for (const TensorInfo& tensor : reader.tensors()) {
        if (tensor.encoding == Encoding::kFactors) continue;
        std::vector<float> values(tensor.elements());
        reader.dequantize(tensor.name, values);
        EXPECT_EQ(values, tensor.encoding == Encoding::kRows ? rows : dense) << tensor.name;
    }
    // Units are 1/4 and 1/2 times 1, 2, 4 sqrt(2), 2^(-7/16), 1. The trellis has levels of its own, but not
    // in column 3.
    const float root = 0x1.6a09e6p0F;
    const float odd = 0x1.7a1148p-2F;
    const std::vector<float> plain = {0.25F, -0.5F, 31 * root, -15.5F * odd, 0,
                                      2.5F,  -6,    4 * root,  3 * odd,      -1.5F};
    const std::vector<float> trellis = {0.5F, -0.5F, 63 * root, -31 * odd, 0,
                                        5,    -11,   8 * root,  6 * odd,   -2.5F};
    std::vector<float> values(10);
    reader.dequantize("factors.raw", values);
    EXPECT_EQ(values, plain);
    reader.dequantize("factors.trellis", values);
    EXPECT_EQ(values, trellis);
}

TEST(Artifact, EveryGoldenBadFileIsRefusedWithItsRule) {
    std::size_t files = 0;
    for (const auto& entry : fs::directory_iterator(kGolden / "bad")) {
        const std::string name = entry.path().filename();
        const auto first = name.find('.');
        const auto second = name.find('.', first + 1);
        const auto [error, text] = error_of(entry.path());
        EXPECT_EQ(error, name.substr(first + 1, second - first - 1)) << name << ": " << text;
        EXPECT_TRUE(text.starts_with("[" + name.substr(0, first) + "]")) << name << ": " << text;
        ++files;
    }
    EXPECT_GE(files, 50U);
}

TEST_F(ArtifactFile, CodesAndScalesComeBack) {
    const std::vector<std::int8_t> codes = {1, -1, 31, -31, 0, 5};
    const std::vector<std::uint16_t> scales = {0x3C00, 0x0001};  // 1 and the smallest subnormal, 2^-24
    ArtifactWriter writer("{}");
    writer.add_rows("w", 2, 3, codes, scales, 6, Codec::kBitpack);
    const std::uint64_t size = writer.write(path_);
    EXPECT_EQ(size, fs::file_size(path_));
    const auto reader = ArtifactReader::open(path_);
    std::vector<std::int8_t> found_codes(6);
    std::vector<std::uint16_t> found_scales(2);
    std::vector<float> values(6);
    reader.codes("w", found_codes);
    reader.scales("w", found_scales);
    reader.dequantize("w", values);
    EXPECT_EQ(found_codes, codes);
    EXPECT_EQ(found_scales, scales);
    EXPECT_EQ(values, (std::vector<float>{1, -1, 31, -31 * 0x1p-24F, 0, 5 * 0x1p-24F}));
    EXPECT_THROW(reader.codes("w", std::span(found_codes).first(5)), ArgumentError);
    EXPECT_THROW(reader.dequantize("w", std::span(values).first(5)), ArgumentError);
    EXPECT_THROW(reader.dequantize("v", values), ArgumentError);
}

TEST_F(ArtifactFile, FactorsComeBackAndHaveTheirSize) {
    const std::vector<std::int16_t> codes = {1, -1, 32767, -32768, 0, 5};
    const std::vector<std::int16_t> row_logs = {-512, -257};
    const std::vector<std::int16_t> col_logs = {256, 511, 300};
    const FactorGrid grid{8, 0x1p-60F, row_logs, col_logs};
    ArtifactWriter writer("{}");
    writer.add_factors("w", codes, grid);
    writer.write(path_);
    const auto reader = ArtifactReader::open(path_);
    EXPECT_EQ(reader.find("w").stored_bytes(), coded_bytes(codes, grid, 1));
    EXPECT_EQ(reader.logs("w", Role::kRowFactors), row_logs);
    EXPECT_EQ(reader.logs("w", Role::kColFactors), col_logs);
    std::vector<std::int16_t> found(6);
    reader.codes("w", found);
    EXPECT_EQ(found, codes);
    std::vector<float> values(6);
    std::vector<float> expected(6);
    reader.dequantize("w", values);
    dequantize_factors(codes, grid, expected);
    EXPECT_EQ(values, expected);
    EXPECT_EQ(values[0], 2 * 0x1p-60F * factor_of(-256));
    EXPECT_THROW((void)reader.logs("w", Role::kScales), ArgumentError);
}

TEST_F(ArtifactFile, RawSectionsAreInTheMapAndSurviveAMove) {
    ArtifactWriter writer("{}");
    writer.add_dense("raw", DType::kFloat16, {4}, bytes_of("abcdefgh"), Codec::kRaw);
    writer.add_dense("zstd", DType::kFloat16, {400}, std::vector<std::byte>(800), Codec::kZstd);
    writer.write(path_);
    auto reader = ArtifactReader::open(path_);
    const auto view = reader.raw("raw", Role::kData);
    ASSERT_TRUE(view.has_value());
    EXPECT_FALSE(reader.raw("zstd", Role::kData).has_value());
    const ArtifactReader moved = std::move(reader);
    EXPECT_EQ(moved.raw("raw", Role::kData)->data(), view->data());
    EXPECT_TRUE(std::ranges::equal(*view, bytes_of("abcdefgh")));
}

TEST_F(ArtifactFile, OneReaderServesManyThreads) {
    ArtifactReader::open(kGolden / "good/written_by_0.1.golf").check(8);
    const auto reader = ArtifactReader::open(kGolden / "good/written_by_0.1.golf");
    parallel_for(64, 8, [&](std::size_t i) {
        const TensorInfo& tensor = reader.tensors()[i % reader.tensors().size()];
        std::vector<float> values(tensor.elements());
        reader.dequantize(tensor.name, values);
    });
}

TEST(AtomicFile, FullDiskIsNamed) {
    const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
    if (full < 0) GTEST_SKIP() << "no /dev/full";
    try {
        write_fully(full, bytes_of("some bytes"), "model.golf");
        ADD_FAILURE() << "wrote to a full disk";
    } catch (const IoError& error) {
        EXPECT_EQ(
            std::string(error.what()),
            "cannot write model.golf: No space left on device (errno 28); 10 bytes were left to write, free "
            "some space");
    }
    ::close(full);
}

TEST(Crc32, IsTheOneOfZlib) {
    EXPECT_EQ(crc32(bytes_of("")), 0U);
    EXPECT_EQ(crc32(bytes_of("123456789")), 0xCBF43926U);  // the published check value
    EXPECT_EQ(crc32(bytes_of("The quick brown fox jumps over the lazy dog")), 0x414FA339U);
}

TEST(Utf8, AcceptsExactlyWellFormedText) {
    for (const char* good : {"", "a", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF",
                             "\xEE\x80\x80", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF", "a\xC3\xA9z"}) {
        EXPECT_TRUE(is_utf8(good)) << good;
    }
    for (const char* bad :
         {"\x80", "\xC1\xBF", "\xC2", "\xC2\x41", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xE1\x80",
          "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "a\xC3"}) {
        EXPECT_FALSE(is_utf8(bad)) << bad;
    }
}

TEST(ParallelFor, RunsEveryTaskAndReportsTheLowestError) {
    for (const int threads : {0, 1, 3, 100}) {
        std::array<int, 50> runs{};
        parallel_for(runs.size(), threads, [&](std::size_t i) { ++runs[i]; });
        EXPECT_EQ(std::ranges::count(runs, 1), 50);
        const auto failing = [](std::size_t i) {
            if (i % 10 == 7) fail<ArgumentError>("task ", i);
        };
        try {
            parallel_for(50, threads, failing);
            ADD_FAILURE() << "no error";
        } catch (const ArgumentError& error) {
            EXPECT_STREQ(error.what(), "task 7");
        }
    }
    parallel_for(0, 4, [](std::size_t) { FAIL(); });
}

}  // namespace
}  // namespace pygolf
