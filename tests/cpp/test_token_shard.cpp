#include <gtest/gtest.h>
#include <sys/stat.h>

#include <functional>
#include <ostream>
#include <string>
#include <typeinfo>
#include <utility>
#include <vector>

#include "pygolf/error.hpp"
#include "pygolf/token_shard.hpp"
#include "shard_files.hpp"

namespace pygolf::testing {
namespace {

constexpr std::array<std::uint16_t, 3> kTokens{7, 65535, 0};

TEST(TokenShard, ReadsTokensWhereTheyLieAndSurvivesMoves) {
    const Folder folder;
    write_shard(folder / "good.bin", shard_header(3), kTokens);
    auto shard = TokenShard::open(folder / "good.bin");
    {
        auto first = TokenShard::open(folder / "good.bin");
        const auto* data = first.tokens().data();
        auto second = std::move(first);
        shard = std::move(second);
        EXPECT_EQ(shard.tokens().data(), data);
    }  // the shards that were moved from must not take the map with them
    EXPECT_EQ(shard.path(), folder / "good.bin");
    EXPECT_EQ(std::vector(shard.tokens().begin(), shard.tokens().end()),
              std::vector(kTokens.begin(), kTokens.end()));
}

TEST(TokenShard, IgnoresReservedHeaderWords) {
    const Folder folder;
    auto header = shard_header(3);
    header[3] = header[255] = -1;
    write_shard(folder / "reserved.bin", header, kTokens);
    EXPECT_EQ(TokenShard::open(folder / "reserved.bin").tokens().size(), 3U);
}

// Opening a good shard of three tokens must fail after `damage`, with `message` behind the path.
struct BadShard {
    const char* name;
    std::function<void(Header&)> damage;
    std::size_t tokens;
    const std::type_info& type;
    std::string rule;
    std::string message;
};

void PrintTo(const BadShard& bad, std::ostream* out) { *out << bad.name; }

class BadShards : public ::testing::TestWithParam<BadShard> {};

TEST_P(BadShards, AreRejectedByTheirRule) {
    const Folder folder;
    const auto path = folder / "bad.bin";
    auto header = shard_header(3);
    GetParam().damage(header);
    write_shard(path, header, std::vector<std::uint16_t>(GetParam().tokens));
    try {
        TokenShard::open(path);
        FAIL() << "the shard was accepted";
    } catch (const FormatError& error) {
        EXPECT_EQ(typeid(error), GetParam().type);
        const auto expected = "[" + GetParam().rule + "] " + path.string() + ": " + GetParam().message;
        EXPECT_EQ(std::string(error.what()).substr(0, expected.size()), expected);
    }
}

const auto kUndamaged = [](Header&) {};
INSTANTIATE_TEST_SUITE_P(
    TokenShard, BadShards,
    ::testing::Values(BadShard{"Magic", [](Header& h) { h[0] = 20240521; }, 3, typeid(FormatError), "S2",
                               "magic is 20240521, expected 20240520; is this a token shard?"},
                      BadShard{"NewVersion", [](Header& h) { h[1] = 2; }, 3, typeid(VersionError), "S3",
                               "version is 2, this build reads version 1;"},
                      BadShard{"VersionZero", [](Header& h) { h[1] = 0; }, 3, typeid(FormatError), "S3",
                               "version is 0, expected 1;"},
                      BadShard{"Truncated", kUndamaged, 2, typeid(FormatError), "S4",
                               "file size is 1028 bytes, expected 1030 (1024 + 2 x 3 tokens);"},
                      BadShard{"Trailing", kUndamaged, 4, typeid(FormatError), "S4",
                               "file size is 1032 bytes, expected 1030"},
                      BadShard{"Empty", [](Header& h) { h[2] = 0; }, 0, typeid(FormatError), "S6",
                               "token count is 0, expected 1 or more;"},
                      BadShard{"NegativeCount", [](Header& h) { h[2] = -3; }, 3, typeid(FormatError), "S6",
                               "token count is -3, expected 1 or more;"}),
    [](const auto& info) { return info.param.name; });

TEST(TokenShard, NamesHeaderThatIsCutOff) {
    const Folder folder;
    for (const std::uintmax_t size : {0U, 1U, 1023U}) {
        write_shard(folder / "cut.bin", shard_header(3), kTokens);
        std::filesystem::resize_file(folder / "cut.bin", size);
        EXPECT_EQ(error_of<FormatError>([&] { TokenShard::open(folder / "cut.bin"); }),
                  message("[S4] ", (folder / "cut.bin").string(), ": file size is ", size,
                          " bytes, expected at least 1024 (the header); copy or make the shard again"));
    }
}

TEST(TokenShard, NamesWhatCannotBeRead) {
    const Folder folder;
    const auto missing = (folder / "missing.bin").string();
    EXPECT_EQ(error_of<IoError>([&] { TokenShard::open(missing); }),
              "[S1] cannot open " + missing +
                  ": No such file or directory (errno 2); check the path and its permissions");
    const auto pipe = (folder / "pipe").string();
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    for (const auto& odd : {(folder / "").string(), pipe}) {
        EXPECT_EQ(error_of<IoError>([&] { TokenShard::open(odd); }),
                  "[S1] " + odd + " is not a regular file; pass the path of a file");
    }
}

}  // namespace
}  // namespace pygolf::testing
