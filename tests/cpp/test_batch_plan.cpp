#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <ostream>
#include <set>
#include <vector>

#include "pygolf/batch_plan.hpp"
#include "pygolf/error.hpp"
#include "shard_files.hpp"

namespace pygolf {

void PrintTo(const Window& window, std::ostream* out) {
    *out << "{" << window.shard << ", " << window.start << "}";
}

namespace testing {
namespace {

PlanConfig config(std::vector<std::uint64_t> shard_tokens, std::uint32_t sequence_length,
                  std::uint32_t windows, std::uint64_t seed = 1337) {
    return {seed, std::move(shard_tokens), sequence_length, windows};
}

std::vector<Window> take_batches(BatchPlan& plan, int count) {
    std::vector<Window> all;
    for (int i = 0; i < count; ++i) {
        const auto batch = plan.next();
        all.insert(all.end(), batch.begin(), batch.end());
    }
    return all;
}

// Pinned: a plan that changes would silently change every run and break every stored state. The second state
// is past the ramp of alpha, so it also pins the roots that alpha's weights are made of.
TEST(BatchPlan, IsGolden) {
    BatchPlan plan(config({50, 100, 1000}, 7, 6));
    const std::vector<Window> first{{0, 28},  {2, 852}, {1, 70}, {2, 677}, {2, 502}, {2, 327},
                                    {2, 152}, {0, 7},   {1, 91}, {0, 35},  {2, 971}, {2, 796}};
    EXPECT_EQ(take_batches(plan, 2), first);
    EXPECT_EQ(plan.state(), (PlanState{1, 1575162041179884887ULL, 2, 7953110949454892795ULL,  //
                                       0, 7, 4, 4, 3,                                         //
                                       0, 14, 10, 3, 2,                                       //
                                       5, 142, 121, 117, 7}));
    take_batches(plan, 1998);
    EXPECT_EQ(plan.state(), (PlanState{1, 1575162041179884887ULL, 2000, 17051485457172919913ULL, 2, 6, 4, 5,
                                       1, 0, 14, 7, 9, 2, 5, 142, 50, 31, 138}));
}

TEST(BatchPlan, TakesEveryBlockOfAPassOnceAtACoprimeStride) {
    for (const std::uint64_t tokens : {9U, 16U, 17U, 18U, 100U, 1000U, 1001U}) {
        constexpr std::uint64_t kLength = 8;
        BatchPlan plan(config({tokens}, kLength, 1));
        std::set<std::uint64_t> phases;
        for (int pass = 0; pass < 20; ++pass) {
            const std::uint64_t first = plan.next()[0].start;
            const std::uint64_t phase = first % kLength;
            const std::uint64_t blocks = (tokens - 1 - phase) / kLength;
            std::vector<std::uint64_t> path{first / kLength};
            while (path.size() < blocks) {
                const auto window = plan.next()[0];
                ASSERT_EQ(window.start % kLength, phase);
                ASSERT_LE(window.start + kLength + 1, tokens);
                path.push_back(window.start / kLength);
            }
            const auto stride = blocks > 1 ? (path[1] + blocks - path[0]) % blocks : 1;
            EXPECT_EQ(std::gcd(stride, blocks), 1U);
            for (std::size_t k = 1; k < blocks; ++k) ASSERT_EQ(path[k], (path[k - 1] + stride) % blocks);
            EXPECT_EQ(std::set(path.begin(), path.end()).size(), blocks);
            EXPECT_LE(phase, std::min(kLength - 1, tokens - kLength - 1));
            phases.insert(phase);
        }
        EXPECT_EQ(phases.size() == 1, tokens == 9)
            << "each pass of " << tokens << " tokens draws its own phase";
    }
}

// With T = 1 the phase is always 0, so the passes of every shard have the same known length.
TEST(BatchPlan, KeepsPassesWholeWhileShardsMix) {
    const std::vector<std::uint64_t> shard_tokens{2, 3, 14, 101};
    BatchPlan plan(config(shard_tokens, 1, 10));
    std::map<std::uint32_t, std::vector<std::uint64_t>> starts;
    for (const auto& window : take_batches(plan, 200)) starts[window.shard].push_back(window.start);
    for (std::uint32_t shard = 0; shard < shard_tokens.size(); ++shard) {
        const auto blocks = shard_tokens[shard] - 1;
        const auto passes = starts[shard].size() / blocks;
        ASSERT_GE(passes, 2U);
        for (std::size_t pass = 0; pass < passes; ++pass) {
            const auto first = starts[shard].begin() + static_cast<std::ptrdiff_t>(pass * blocks);
            EXPECT_EQ(std::set(first, first + static_cast<std::ptrdiff_t>(blocks)).size(), blocks);
        }
    }
}

TEST(BatchPlan, MixesAsManyShardsAsTheFormulaSays) {
    const auto formula = [](double batch, double shards, double windows, double ranks) {
        const double low = std::min({std::max(8.0, ranks), shards, windows});
        const double high = std::min({std::max(32.0, 8 * ranks), shards, windows});
        return static_cast<std::uint32_t>(std::floor(low + std::min(batch / 1800, 1.0) * (high - low) + 0.5));
    };
    for (const std::uint32_t batch : {0U, 1U, 100U, 899U, 901U, 1799U, 1800U, 5000U}) {
        for (const std::uint32_t shards : {1U, 5U, 20U, 80U}) {
            for (const std::uint32_t windows : {1U, 16U, 384U}) {
                for (const std::uint32_t ranks : {1U, 8U, 12U}) {
                    EXPECT_EQ(mixed_shard_count(batch, shards, windows, ranks),
                              formula(batch, shards, windows, ranks));
                }
            }
        }
    }
    EXPECT_EQ(mixed_shard_count(0, 80, 384, 8), 8U);
    EXPECT_EQ(mixed_shard_count(900, 80, 384, 8), 36U);
    EXPECT_EQ(mixed_shard_count(1800, 80, 384, 8), 64U);
    EXPECT_EQ(mixed_shard_count(900, 9, 384, 8), 9U) << "8.5 rounds up";

    BatchPlan plan(config(std::vector<std::uint64_t>(80, 5000), 8, 100));
    for (std::uint64_t batch = 0; batch < 1900; ++batch) {
        std::set<std::uint32_t> shards;
        for (const auto& window : plan.next()) shards.insert(window.shard);
        ASSERT_EQ(shards.size(), mixed_shard_count(batch, 80, 100, 8)) << "batch " << batch;
    }
}

// One window a batch, so the first shard drawn is all of it. Blocks 1000 and 100 at alpha 0.9: 1 in 1 +
// 10^0.9.
TEST(BatchPlan, DrawsShardsByRemainingBlocksToThePowerAlpha) {
    constexpr int kPlans = 20000;
    int small = 0;
    for (int seed = 0; seed < kPlans; ++seed) {
        small += BatchPlan(config({1001, 101}, 1, 1, static_cast<std::uint64_t>(seed))).next()[0].shard == 1
                     ? 1
                     : 0;
    }
    EXPECT_NEAR(small / double{kPlans}, 1 / (1 + std::pow(10, 0.9)), 4 * 0.0022);  // 0.0022 is one deviation

    // After 1800 batches alpha is 0.5; the shards are so large that what was taken does not count.
    BatchPlan plan(config({1U << 30, 1U << 26}, 1, 1));
    take_batches(plan, 1800);
    const auto windows = take_batches(plan, kPlans);
    const auto of_small =
        std::count_if(windows.begin(), windows.end(), [](auto window) { return window.shard == 1; });
    EXPECT_NEAR(static_cast<double>(of_small) / kPlans, 1 / (1 + std::sqrt(16)), 4 * 0.0028);
}

TEST(BatchPlan, WeighsByWhatIsLeftOfThePass) {
    int from_fresh = 0;
    for (std::uint64_t seed = 0; seed < 2000; ++seed) {
        BatchPlan plan(config({1001, 1001}, 1, 1, seed));
        auto words = plan.state();
        words[4 + 4] = 999;  // one block left of shard 0's pass
        plan.restore(words);
        from_fresh += plan.next()[0].shard == 1 ? 1 : 0;
    }
    EXPECT_GT(from_fresh, 1980);  // 0.2 % of 2000 go to shard 0
}

TEST(BatchPlan, SpreadsFurtherWindowsByTheSameWeights) {
    constexpr std::uint32_t kWindows = 1002;
    BatchPlan plan(config({100'001, 10'001}, 1, kWindows));
    const auto windows = plan.next();
    const auto small =
        std::count_if(windows.begin(), windows.end(), [](auto window) { return window.shard == 1; });
    EXPECT_NEAR(static_cast<double>(small), 1 + 1000 / (1 + std::pow(10, 0.9)),
                4 * 10.0);  // one deviation is 10
}

TEST(BatchPlan, InterleavesRoundRobinInAFreshOrderEachRound) {
    BatchPlan plan(config(std::vector<std::uint64_t>(8, 9000), 8, 64));
    int fresh_orders = 0;
    for (int batch = 0; batch < 50; ++batch) {
        std::vector<std::uint32_t> shards;
        for (const auto& window : plan.next()) shards.push_back(window.shard);
        std::map<std::uint32_t, int> seen;
        int round = 0;
        for (const auto shard : shards) {
            ASSERT_GE(seen[shard], round) << "a round began before the last one had visited every shard";
            round = seen[shard]++;
        }
        const std::set first_round(shards.begin(), shards.begin() + 8);
        ASSERT_EQ(first_round.size(), 8U);
        fresh_orders += std::equal(shards.begin(), shards.begin() + 4, shards.begin() + 8) ? 0 : 1;
    }
    EXPECT_GE(fresh_orders, 45);
}

TEST(BatchPlan, DependsOnEverySetting) {
    const auto base = config(std::vector<std::uint64_t>(40, 5000), 8, 64);
    const auto batches = [](const PlanConfig& changed) {
        BatchPlan plan(changed);
        return take_batches(plan, 3);
    };
    EXPECT_EQ(batches(base), batches(base));
    auto changed = base;
    changed.seed = 1338;
    EXPECT_NE(batches(changed), batches(base));
    changed = base;
    changed.shard_tokens[39] = 4000;
    EXPECT_NE(batches(changed), batches(base));
    changed = base;
    changed.mixing_ranks = 16;
    EXPECT_NE(batches(changed), batches(base));
}

TEST(BatchPlan, ContinuesFromAState) {
    const auto settings = config({50, 100, 1000}, 7, 6);
    BatchPlan plan(settings);
    take_batches(plan, 57);
    const auto state = plan.state();
    const auto expected = take_batches(plan, 100);
    BatchPlan other(settings);
    other.restore(state);
    EXPECT_EQ(other.state(), state);
    EXPECT_EQ(take_batches(other, 100), expected);
    plan.restore(state);
    EXPECT_EQ(take_batches(plan, 100), expected);
}

TEST(BatchPlan, RejectsAStateThatIsNotItsOwn) {
    const auto settings = config({50, 100, 1000}, 7, 6);
    BatchPlan plan(settings);
    const auto good = plan.state();
    for (auto change : std::vector<std::function<void(PlanConfig&)>>{
             [](auto& c) { c.seed = 1; }, [](auto& c) { c.shard_tokens[2] = 999; },
             [](auto& c) { c.shard_tokens.pop_back(); }, [](auto& c) { c.sequence_length = 8; },
             [](auto& c) { c.windows_per_batch = 7; }, [](auto& c) { c.mixing_ranks = 9; }}) {
        auto other = settings;
        change(other);
        EXPECT_NE(
            error_of<ArgumentError>([&] { BatchPlan(other).restore(good); }).find("is not of this plan"),
            std::string::npos);
    }
    EXPECT_THROW(plan.restore({}), ArgumentError);
    for (const std::size_t word :
         {4U, 5U, 6U, 7U, 8U, 18U}) {  // each of a pass: phase, n, a, s, k; and the last
        for (const std::uint64_t value : {std::uint64_t{1000}, ~std::uint64_t{0}}) {
            auto damaged = good;
            damaged[word] = value;
            EXPECT_NE(error_of<ArgumentError>([&] { plan.restore(damaged); }).find("is damaged at shard"),
                      std::string::npos);
        }
    }
    EXPECT_EQ(plan.state(), good) << "a rejected state must leave the plan as it was";
}

TEST(BatchPlan, RejectsConfigsThatCannotBe) {
    const auto reason = [](const PlanConfig& bad) {
        return error_of<ArgumentError>([&] { BatchPlan plan(bad); });
    };
    EXPECT_EQ(reason(config({}, 8, 4)),
              "a batch plan has 0 shards, expected 1 to 65536; pass the token count of each shard");
    EXPECT_EQ(reason(config({100}, 0, 4)), "sequence_length is 0, expected 1 or more");
    EXPECT_EQ(reason(config({100}, 8, 0)), "windows_per_batch is 0, expected 1 or more");
    EXPECT_EQ(reason({1, {100}, 8, 4, 0}), "mixing_ranks is 0, expected 1 or more");
    EXPECT_EQ(
        reason(config({100, 8}, 8, 4)),
        "shard 1 has 8 tokens, expected 9 (sequence_length + 1) to 2147483647; leave the shard out or use a "
        "shorter sequence_length");
    EXPECT_NE(reason(config({~std::uint64_t{0}}, 8, 4)), "");
}

}  // namespace
}  // namespace testing
}  // namespace pygolf
