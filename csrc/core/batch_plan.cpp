#include "pygolf/batch_plan.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <string_view>
#include <utility>

#include "pygolf/error.hpp"
#include "pygolf/token_shard.hpp"

namespace pygolf {
namespace {

constexpr std::uint64_t kRampBatches = 1800;
constexpr std::uint64_t kMaxShards = 1 << 16;
constexpr std::uint64_t kStateVersion = 1;
constexpr std::size_t kHeaderWords = 4;  // version, fingerprint, batch, generator
constexpr std::size_t kPassWords = 5;    // phase, n, a, s, k

// SplitMix64 (Steele, Lea, Flood 2014). Written out because the distributions, and some generators, of the
// standard library differ from platform to platform.
std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
}

std::uint64_t next_random(std::uint64_t& state) {
    state += 0x9E3779B97F4A7C15ULL;
    return mix(state);
}

// Uniform in [0, bound). Numbers below 2^64 mod bound are thrown away: the rest splits evenly.
std::uint64_t draw_below(std::uint64_t bound, std::uint64_t& random) {
    const std::uint64_t rejected = (0 - bound) % bound;
    std::uint64_t value = next_random(random);
    while (value < rejected) value = next_random(random);
    return value % bound;
}

// x^(exponent / 2^16) for an exponent below 2^16: its bits pick among the repeated square roots of x. IEEE
// 754 rounds square roots and products correctly, so every platform gets the same bits, which std::pow does
// not promise.
double power(double x, std::uint64_t exponent) {
    double root = x;
    double result = 1.0;
    for (std::uint64_t bit = 1U << 15; bit != 0; bit >>= 1) {
        root = std::sqrt(root);
        if ((exponent & bit) != 0) result *= root;
    }
    return result;
}

// How many windows of a batch come from a shard.
struct Share {
    std::uint32_t shard = 0;
    std::uint64_t weight = 0;
    std::uint64_t windows = 0;
};

std::uint64_t total_weight(const std::vector<Share>& shares) {
    return std::accumulate(shares.begin(), shares.end(), std::uint64_t{0},
                           [](std::uint64_t sum, const Share& share) { return sum + share.weight; });
}

std::size_t draw_weighted(const std::vector<Share>& shares, std::uint64_t& random) {
    std::uint64_t point = draw_below(total_weight(shares), random);
    std::size_t index = 0;
    while (point >= shares[index].weight) point -= shares[index++].weight;
    return index;
}

// `count` shards without replacement, one window each.
std::vector<Share> draw_shards(const std::vector<std::uint64_t>& weights, std::uint32_t count,
                               std::uint64_t& random) {
    std::vector<Share> candidates;
    for (std::uint32_t shard = 0; shard < weights.size(); ++shard)
        candidates.push_back({shard, weights[shard], 1});
    std::vector<Share> drawn;
    while (drawn.size() < count) {
        const auto index = draw_weighted(candidates, random);
        drawn.push_back(candidates[index]);
        candidates[index] = candidates.back();
        candidates.pop_back();
    }
    return drawn;
}

void shuffle(std::vector<Share>& shares, std::uint64_t& random) {
    for (std::size_t left = shares.size(); left > 1; --left) {
        std::swap(shares[left - 1], shares[draw_below(left, random)]);
    }
}

// The shard of each window: rounds that visit every shard with windows left, each round in a fresh order.
std::vector<std::uint32_t> interleave(std::vector<Share> shares, std::uint64_t& random) {
    std::vector<std::uint32_t> order;
    while (!shares.empty()) {
        shuffle(shares, random);
        for (auto& share : shares) {
            order.push_back(share.shard);
            --share.windows;
        }
        std::erase_if(shares, [](const Share& share) { return share.windows == 0; });
    }
    return order;
}

void check_not_zero(std::string_view name, std::uint64_t value) {
    if (value == 0) fail<ArgumentError>(name, " is 0, expected 1 or more");
}

void check(const PlanConfig& config) {
    check_not_zero("sequence_length", config.sequence_length);
    check_not_zero("windows_per_batch", config.windows_per_batch);
    check_not_zero("mixing_ranks", config.mixing_ranks);
    const std::uint64_t shards = config.shard_tokens.size();
    if (shards < 1 || shards > kMaxShards) {
        fail<ArgumentError>("a batch plan has ", shards, " shards, expected 1 to ", kMaxShards,
                            "; pass the token count of each shard");
    }
    const std::uint64_t least = std::uint64_t{config.sequence_length} + 1;
    for (std::size_t i = 0; i < shards; ++i) {
        const auto tokens = config.shard_tokens[i];
        if (tokens >= least && tokens <= kMaxShardTokens) continue;
        fail<ArgumentError>("shard ", i, " has ", tokens, " tokens, expected ", least,
                            " (sequence_length + 1) to ", kMaxShardTokens,
                            "; leave the shard out or use a shorter sequence_length");
    }
}

}  // namespace

std::uint32_t mixed_shard_count(std::uint64_t batch, std::uint64_t shards, std::uint32_t windows_per_batch,
                                std::uint32_t mixing_ranks) {
    const std::uint64_t limit = std::min<std::uint64_t>(shards, windows_per_batch);
    const std::uint64_t low = std::min<std::uint64_t>(std::max<std::uint64_t>(8, mixing_ranks), limit);
    const std::uint64_t high = std::min(std::max<std::uint64_t>(32, 8 * std::uint64_t{mixing_ranks}), limit);
    const std::uint64_t ramp = std::min(batch, kRampBatches);
    // Whole numbers, so that halves round up everywhere: low + floor(ramp * (high - low) / 1800 + 1/2).
    return static_cast<std::uint32_t>(low + (2 * ramp * (high - low) + kRampBatches) / (2 * kRampBatches));
}

BatchPlan::BatchPlan(PlanConfig config) : config_(std::move(config)), random_(mix(config_.seed)) {
    check(config_);
    for (const auto tokens : config_.shard_tokens) passes_.push_back(begin_pass(tokens));
}

std::vector<Window> BatchPlan::next() {
    const auto weights = shard_weights();
    const auto mixed =
        mixed_shard_count(batch_, weights.size(), config_.windows_per_batch, config_.mixing_ranks);
    auto shares = draw_shards(weights, mixed, random_);
    for (auto extra = config_.windows_per_batch - mixed; extra > 0; --extra) {
        ++shares[draw_weighted(shares, random_)].windows;
    }
    std::vector<Window> windows;
    windows.reserve(config_.windows_per_batch);
    for (const auto shard : interleave(std::move(shares), random_)) windows.push_back(take(shard));
    ++batch_;
    return windows;
}

// remaining^alpha in units of 2^-16. With at most 2^16 shards of less than 2^31 blocks the sum stays below
// 2^60.
std::vector<std::uint64_t> BatchPlan::shard_weights() const {
    // alpha = 0.90 - 0.40 p = (4050 - p*1800) / 4500
    const std::uint64_t exponent = ((4050 - std::min(batch_, kRampBatches)) << 16) / 4500;
    std::vector<std::uint64_t> weights;
    weights.reserve(passes_.size());
    for (const auto& pass : passes_) {
        const auto remaining = static_cast<double>(pass.blocks - pass.taken);
        weights.push_back(static_cast<std::uint64_t>(power(remaining, exponent) * 65536.0));
    }
    return weights;
}

BatchPlan::Pass BatchPlan::begin_pass(std::uint64_t shard_tokens) {
    const std::uint64_t length = config_.sequence_length;
    Pass pass;
    pass.phase = draw_below(std::min(length, shard_tokens - length), random_);
    pass.blocks = (shard_tokens - 1 - pass.phase) / length;
    pass.start = draw_below(pass.blocks, random_);
    if (pass.blocks > 1) {
        do {
            pass.stride = 1 + draw_below(pass.blocks - 1, random_);
        } while (std::gcd(pass.stride, pass.blocks) != 1);
    }
    return pass;
}

Window BatchPlan::take(std::uint32_t shard) {
    Pass& pass = passes_[shard];
    const std::uint64_t block = (pass.start + pass.taken * pass.stride) % pass.blocks;
    const Window window{shard, pass.phase + block * config_.sequence_length};
    if (++pass.taken == pass.blocks) pass = begin_pass(config_.shard_tokens[shard]);
    return window;
}

std::uint64_t BatchPlan::fingerprint() const {
    std::uint64_t hash = 0;
    const auto add = [&hash](std::uint64_t word) { hash = mix(hash ^ word) + 1; };
    for (const auto word : std::array<std::uint64_t, 4>{config_.seed, config_.sequence_length,
                                                        config_.windows_per_batch, config_.mixing_ranks}) {
        add(word);
    }
    for (const auto tokens : config_.shard_tokens) add(tokens);
    return hash;
}

PlanState BatchPlan::state() const {
    PlanState words{kStateVersion, fingerprint(), batch_, random_};
    words.reserve(kHeaderWords + kPassWords * passes_.size());
    for (const auto& pass : passes_) {
        words.insert(words.end(), {pass.phase, pass.blocks, pass.start, pass.stride, pass.taken});
    }
    return words;
}

bool BatchPlan::is_valid(const Pass& pass, std::uint64_t shard_tokens) const {
    const std::uint64_t length = config_.sequence_length;
    return pass.phase < std::min(length, shard_tokens - length) &&
           pass.blocks == (shard_tokens - 1 - pass.phase) / length && pass.start < pass.blocks &&
           pass.stride >= 1 && pass.stride <= std::max<std::uint64_t>(pass.blocks - 1, 1) &&
           std::gcd(pass.stride, pass.blocks) == 1 && pass.taken < pass.blocks;
}

void BatchPlan::restore(const PlanState& state) {
    const std::size_t expected = kHeaderWords + kPassWords * passes_.size();
    if (state.size() != expected || state[0] != kStateVersion || state[1] != fingerprint()) {
        fail<ArgumentError>(
            "the plan state (", state.size(), " words) is not of this plan (", expected,
            " words): seed, shard sizes, sequence_length, windows_per_batch and mixing_ranks must be "
            "those of the run that stored it");
    }
    std::vector<Pass> passes;
    for (std::size_t i = 0; i < passes_.size(); ++i) {
        const auto* word = &state[kHeaderWords + kPassWords * i];
        passes.push_back({word[0], word[1], word[2], word[3], word[4]});
        if (!is_valid(passes.back(), config_.shard_tokens[i])) {
            fail<ArgumentError>("the plan state is damaged at shard ", i,
                                "; restore an older state or start afresh");
        }
    }
    passes_ = std::move(passes);
    batch_ = state[2];
    random_ = state[3];
}

}  // namespace pygolf
