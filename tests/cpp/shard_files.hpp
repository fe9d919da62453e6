// Token shards for tests, in a folder that is removed at the end.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "pygolf/token_shard.hpp"

namespace pygolf::testing {

class Folder {
  public:
    Folder() {
        const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
        auto name = std::string("pygolf.") + test->test_suite_name() + "." + test->name();
        for (auto& letter : name) letter = letter == '/' ? '.' : letter;
        path_ = std::filesystem::path(::testing::TempDir()) / (name + "." + std::to_string(::getpid()));
        std::filesystem::remove_all(path_);
        std::filesystem::create_directories(path_);
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() { std::filesystem::remove_all(path_); }

    [[nodiscard]] std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

  private:
    std::filesystem::path path_;
};

using Header = std::array<std::int32_t, 256>;

inline Header shard_header(std::int32_t token_count) {
    Header header{};
    header[0] = 20240520;
    header[1] = 1;
    header[2] = token_count;
    return header;
}

inline void write_shard(const std::filesystem::path& path, const Header& header,
                        std::span<const std::uint16_t> tokens) {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(header.data()), sizeof header);
    file.write(reinterpret_cast<const char*>(tokens.data()),
               static_cast<std::streamsize>(tokens.size_bytes()));
    ASSERT_TRUE(file.flush().good()) << path;
}

// A shard of the integers first, first + 1, ..., so that a token tells where it comes from.
inline ShardRange counting_shard(const std::filesystem::path& path, std::uint16_t first,
                                 std::uint16_t count) {
    std::vector<std::uint16_t> tokens(count);
    std::iota(tokens.begin(), tokens.end(), first);
    write_shard(path, shard_header(count), tokens);
    return {path};
}

// The message of the E that `action` must throw.
template <typename E, typename Action>
std::string error_of(Action action) {
    try {
        action();
    } catch (const E& error) {
        return error.what();
    }
    ADD_FAILURE() << "no error was thrown";
    return "";
}

}  // namespace pygolf::testing
