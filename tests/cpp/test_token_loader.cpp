#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <thread>

#include "pygolf/error.hpp"
#include "pygolf/token_loader.hpp"
#include "shard_files.hpp"

namespace pygolf::testing {
namespace {

using Rows = std::vector<std::vector<std::uint16_t>>;

// A loader with its buffers.
class Batches {
  public:
    Batches(const LoaderConfig& config, std::size_t buffers, const std::optional<PlanState>& state = {})
        : columns_(config.sequence_length + 1),
          memory_(buffers,
                  std::vector<std::uint16_t>(config.windows_per_batch / config.world_size * columns_)),
          loader_(config, {memory_.begin(), memory_.end()}, state) {}

    TokenLoader& operator*() { return loader_; }
    TokenLoader* operator->() { return &loader_; }

    [[nodiscard]] Rows rows(std::size_t index) const {
        Rows rows;
        for (auto at = memory_[index].begin(); at != memory_[index].end(); at += columns_) {
            rows.emplace_back(at, at + columns_);
        }
        return rows;
    }

    Rows take(int batches = 1) {
        Rows all;
        for (int i = 0; i < batches; ++i) {
            const auto index = loader_.next();
            const auto batch = rows(index);
            all.insert(all.end(), batch.begin(), batch.end());
            loader_.release(index);
        }
        return all;
    }

  private:
    std::ptrdiff_t columns_;
    std::vector<std::vector<std::uint16_t>> memory_;
    TokenLoader loader_;
};

class TokenLoaderTest : public ::testing::Test {
  protected:
    // Shard A holds 0..499, shard B 1000..1299, shard C 2000..2016.
    const Folder folder_;
    const LoaderConfig config_{
        .ranges = {counting_shard(folder_ / "a.bin", 0, 500), counting_shard(folder_ / "b.bin", 1000, 300),
                   counting_shard(folder_ / "c.bin", 2000, 17)},
        .seed = 1337,
        .sequence_length = 8,
        .windows_per_batch = 12,
        .vocab_size = 4000};

    [[nodiscard]] LoaderConfig rank_of(std::uint32_t rank, std::uint32_t world_size) const {
        auto config = config_;
        config.rank = rank;
        config.world_size = world_size;
        return config;
    }

    // What the constructor says about a config with three good buffers.
    template <typename E>
    static std::string reason(const LoaderConfig& config, std::size_t tokens_a_buffer = 12 * 9) {
        std::vector<std::vector<std::uint16_t>> memory(3, std::vector<std::uint16_t>(tokens_a_buffer));
        return error_of<E>([&] { TokenLoader loader(config, {memory.begin(), memory.end()}); });
    }
};

TEST_F(TokenLoaderTest, ServesThePlansWindows) {
    BatchPlan plan({1337, {500, 300, 17}, 8, 12});
    Batches batches(config_, 3);
    for (int batch = 0; batch < 20; ++batch) {
        Rows expected;
        for (const auto& window : plan.next()) {
            std::vector<std::uint16_t> row(9);
            std::iota(row.begin(), row.end(), static_cast<std::uint16_t>(1000 * window.shard + window.start));
            expected.push_back(row);
        }
        EXPECT_EQ(batches.take(), expected);
        EXPECT_EQ(batches->state(), plan.state());
    }
}

TEST_F(TokenLoaderTest, OnePassOverAllRanksServesEveryBlockOnce) {
    std::map<int, std::vector<std::uint16_t>> starts;  // shard -> offsets in order of batches
    std::vector<std::unique_ptr<Batches>> ranks;
    for (std::uint32_t rank = 0; rank < 4; ++rank)
        ranks.push_back(std::make_unique<Batches>(rank_of(rank, 4), 2));
    for (int batch = 0; batch < 40; ++batch) {
        std::vector<Rows> parts;
        for (auto& rank : ranks) parts.push_back(rank->take());
        for (std::size_t i = 0; i < 12; ++i) {
            const auto first = parts[i % 4][i / 4][0];
            starts[first / 1000].push_back(first % 1000);
        }
    }
    const std::array<std::size_t, 3> tokens{500, 300, 17};
    for (auto& [shard, order] : starts) {
        const std::size_t phase = order[0] % 8U;
        const std::size_t blocks = (tokens[static_cast<std::size_t>(shard)] - 1 - phase) / 8;
        ASSERT_GE(order.size(), blocks) << "shard " << shard << " was not served a whole pass";
        std::sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(blocks));
        for (std::size_t block = 0; block < blocks; ++block) EXPECT_EQ(order[block], phase + 8 * block);
    }
    EXPECT_EQ(starts.size(), 3U);
}

TEST_F(TokenLoaderTest, RanksTogetherSeeWhatOneSees) {
    const auto whole = Batches(config_, 2).take(10);
    for (const std::uint32_t world_size : {2U, 3U, 12U}) {
        for (std::uint32_t rank = 0; rank < world_size; ++rank) {
            Rows expected;
            for (std::size_t i = rank; i < whole.size(); i += world_size) expected.push_back(whole[i]);
            EXPECT_EQ(Batches(rank_of(rank, world_size), 2).take(10), expected);
        }
    }
}

TEST_F(TokenLoaderTest, ResumesAfterTheLastBatchHandedOut) {
    for (const std::size_t buffers : {1U, 2U, 5U}) {  // with 5 the thread is up to 5 batches ahead
        Batches batches(config_, buffers);
        const auto fresh = batches->state();
        batches.take(7);
        const auto state = batches->state();
        EXPECT_NE(state, fresh);
        const auto expected = batches.take(50);
        EXPECT_EQ(Batches(config_, 2, state).take(50), expected);
        EXPECT_EQ(Batches(config_, 2, state)->state(), state) << "nothing was handed out yet";
    }
}

TEST_F(TokenLoaderTest, StaysInItsRanges) {
    auto config = config_;
    config.ranges[0].begin = 100;
    config.ranges[0].end = 130;
    config.ranges[1].end = 20;
    config.ranges[2].begin = 8;               // exactly one window
    std::map<int, std::pair<int, int>> span;  // shard -> least and largest token
    for (const auto& row : Batches(config, 2).take(100)) {
        auto& [least, largest] = span.try_emplace(row[0] / 1000, row.front(), row.back()).first->second;
        least = std::min<int>(least, row.front());
        largest = std::max<int>(largest, row.back());
    }
    EXPECT_EQ(span[0], (std::pair{100, 129}));
    EXPECT_EQ(span[1], (std::pair{1000, 1019}));
    EXPECT_EQ(span[2], (std::pair{2008, 2016}));
}

TEST_F(TokenLoaderTest, NamesRangesThatAShardDoesNotHave) {
    const auto with_range = [&](std::uint64_t begin, std::uint64_t end) {
        auto config = config_;
        config.ranges[1].begin = begin;
        config.ranges[1].end = end;
        return reason<ArgumentError>(config);
    };
    const auto path = (folder_ / "b.bin").string();
    const std::string limits = " does not fit, expected begin < end <= 300 (the shard's token count)";
    EXPECT_EQ(with_range(0, 301), path + ": range [0, 301)" + limits);
    EXPECT_EQ(with_range(300, kToEnd), path + ": range [300, 300)" + limits);
    EXPECT_EQ(with_range(20, 10), path + ": range [20, 10)" + limits);
    EXPECT_EQ(with_range(292, kToEnd),
              path +
                  ": range [292, 300) has 8 tokens, expected at least 9 (sequence_length "
                  "+ 1); leave it out or use a shorter sequence_length");
}

TEST_F(TokenLoaderTest, ChecksEveryShardWhenItOpens) {
    write_shard(folder_ / "c.bin", shard_header(18), std::vector<std::uint16_t>(17));
    EXPECT_EQ(reason<FormatError>(config_).substr(0, 4), "[S4]");
}

TEST_F(TokenLoaderTest, ReportsATokenOutsideTheVocabularyAfterTheBatchesBeforeIt) {
    // The sixth window of the plan gets a token that no other window of the pass has.
    BatchPlan plan({1337, {500}, 8, 1});
    std::uint64_t bad = 0;
    for (int batch = 0; batch < 6; ++batch) bad = plan.next()[0].start + 4;
    std::vector<std::uint16_t> tokens(500, 3999);
    tokens[bad] = 4000;
    write_shard(folder_ / "a.bin", shard_header(500), tokens);
    auto config = config_;
    config.ranges = {config_.ranges[0]};
    config.windows_per_batch = 1;

    Batches batches(config, 4);
    EXPECT_EQ(batches.take(5), Rows(5, std::vector<std::uint16_t>(9, 3999)));
    for (int again = 0; again < 2; ++again) {
        EXPECT_EQ(
            error_of<FormatError>([&] { (void)batches->next(); }),
            message("[S7] ", (folder_ / "a.bin").string(), ": token ", bad, " is 4000",
                    ", expected below the vocabulary size 4000; was the shard made with another tokenizer?"));
    }
}

TEST_F(TokenLoaderTest, HandsBuffersOutOnlyUntilTheyAreReleased) {
    Batches batches(config_, 2);
    const auto first = batches->next();
    const auto held = batches.rows(first);
    const auto second = batches->next();
    EXPECT_NE(first, second);
    EXPECT_EQ(error_of<ArgumentError>([&] { (void)batches->next(); }),
              "next() would wait forever: all 2 buffers are handed out; release() one first");
    batches->release(second);
    batches.take(10);  // the other buffer goes round alone
    EXPECT_EQ(batches.rows(first), held) << "a buffer that is handed out must not be written to";
    EXPECT_THROW(batches->release(second), ArgumentError);
    EXPECT_EQ(error_of<ArgumentError>([&] { batches->release(2); }),
              "buffer 2 is not handed out; release() takes, once, an index that next() returned");
}

TEST_F(TokenLoaderTest, RejectsConfigsThatCannotBe) {
    EXPECT_EQ(reason<ArgumentError>(rank_of(0, 5)),
              "windows_per_batch is 12, expected a multiple of world_size, which "
              "is 5; change the batch or the number of processes");
    EXPECT_EQ(reason<ArgumentError>(rank_of(3, 3)), "rank is 3, expected below world_size, which is 3");
    EXPECT_EQ(reason<ArgumentError>(rank_of(0, 0)), "rank is 0, expected below world_size, which is 0");
    auto config = config_;
    config.vocab_size = 0;
    EXPECT_NE(reason<ArgumentError>(config).find("vocab_size is 0"), std::string::npos);
    EXPECT_EQ(reason<ArgumentError>(config_, 12 * 9 - 1),
              "buffer 0 holds 107 tokens, expected 108 = 12 rows (windows_per_batch / world_size) of "
              "sequence_length + "
              "1 = 9");
    std::vector<std::uint16_t> memory(12 * 9 + 8 * 9);
    const std::span all(memory);
    EXPECT_EQ(error_of<ArgumentError>([&] {
                  TokenLoader(config_, {all.subspan(72), all.first(108)});
              }),
              "two buffers overlap, expected memory of its own for each; allocate one array a buffer");
    EXPECT_EQ(error_of<ArgumentError>([&] { TokenLoader(config_, {}); }),
              "there are no buffers, expected 1 or more (2 to prefetch)");
    EXPECT_THROW(Batches(config_, 2, PlanState{1, 2, 3}), ArgumentError);
}

TEST_F(TokenLoaderTest, CanBeDestroyedAtAnyMoment) {
    for (int wait = 0; wait < 20; ++wait) {
        Batches batches(config_, 2);
        std::this_thread::sleep_for(std::chrono::microseconds(20 * wait));  // the thread fills, then waits
    }
    Batches held(config_, 1);
    (void)held->next();  // the thread waits for the only buffer
}

TEST_F(TokenLoaderTest, CloseStopsConsumersInOtherThreads) {
    for (int round = 0; round < 20; ++round) {
        Batches batches(config_, 3);
        std::atomic<int> stopped = 0;
        const auto consume = [&] {
            const auto reason = error_of<ArgumentError>([&] {
                while (true) batches->release(batches->next());
            });
            stopped += reason.starts_with("the token loader is closed") ? 1 : 0;
        };
        std::thread first(consume);
        std::thread second(consume);
        std::this_thread::sleep_for(std::chrono::microseconds(100 * round));
        batches->close();
        batches->close();
        first.join();
        second.join();
        EXPECT_EQ(stopped, 2);
    }
}

TEST_F(TokenLoaderTest, MeasuresHowLongNextWaited) {
    auto config = config_;
    config.windows_per_batch = 1 << 18;  // tens of milliseconds of work
    Batches batches(config, 1);
    EXPECT_EQ(batches->try_next_for(std::chrono::milliseconds(1)), std::nullopt);
    const auto after_giving_up = batches->wait_seconds();
    EXPECT_GE(after_giving_up, 0.001);
    (void)batches->next();
    EXPECT_GT(batches->wait_seconds(), after_giving_up);
}

}  // namespace
}  // namespace pygolf::testing
