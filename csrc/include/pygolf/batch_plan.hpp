// Which windows of which shards make up each batch: the coprime-stride multi-shard sampler.
//
// Shard i (N tokens) is cut into n = floor((N-1-phase) / T) blocks that start at phase + b*T and hold T+1
// tokens (inputs and, shifted by one, targets). A pass over a shard takes block (a + k*s) mod n for
// k = 0, 1, ... n-1; since gcd(s, n) = 1 each block comes once a pass. Every pass draws its own
//   phase ~ U{0..min(T-1, N-T-1)},  start a ~ U{0..n-1},  stride s ~ U{1..n-1} coprime to n,
// so block borders move and windows of neighbouring steps are far apart.
//
// A batch of G windows mixes m shards (mixed_shard_count), drawn without replacement with weight
// remaining^alpha, where remaining is the number of blocks left in the shard's pass and alpha falls from 0.90
// to 0.50 over 1800 batches. Each drawn shard gives one window, the other G - m are multinomial over the
// drawn shards with the same weights. Windows are interleaved round-robin over the shards, in a fresh order
// each round. Idea: openai/parameter-golf PRs 726 and 1060.
//
// The plan depends on nothing but its PlanConfig: not on file paths, the number of ranks, the platform or the
// standard library. So ranks need no communication, and N ranks together see what one would.
//
// Thread safety: a BatchPlan is a plain value; one thread at a time may use it.
#pragma once

#include <cstdint>
#include <vector>

namespace pygolf {

inline constexpr std::uint32_t kDefaultMixingRanks = 8;

struct PlanConfig {
    std::uint64_t seed = 0;
    std::vector<std::uint64_t> shard_tokens;           // N of each shard (or range of a shard)
    std::uint32_t sequence_length = 0;                 // T
    std::uint32_t windows_per_batch = 0;               // G, over all ranks
    std::uint32_t mixing_ranks = kDefaultMixingRanks;  // W of mixed_shard_count; not the ranks at hand
};

// T + 1 tokens of a shard from token `start`.
struct Window {
    std::uint32_t shard = 0;
    std::uint64_t start = 0;

    bool operator==(const Window&) const = default;
};

// Everything that decides the batches still to come, as plain words that any format can store.
using PlanState = std::vector<std::uint64_t>;

// m = round(lo + p*(hi - lo)), halves up, with p = min(batch/1800, 1),
// lo = min(max(8, W), shards, G) and hi = min(max(32, 8W), shards, G).
[[nodiscard]] std::uint32_t mixed_shard_count(std::uint64_t batch, std::uint64_t shards,
                                              std::uint32_t windows_per_batch, std::uint32_t mixing_ranks);

class BatchPlan {
  public:
    // Throws ArgumentError for a zero size, no shards, or a shard that is shorter than T + 1 tokens or longer
    // than the shard format allows.
    explicit BatchPlan(PlanConfig config);

    // The G windows of the next batch; rank r of R takes windows r, r + R, r + 2R, ...
    [[nodiscard]] std::vector<Window> next();

    [[nodiscard]] PlanState state() const;

    // Goes on from a state() of a plan with the same config. Throws ArgumentError, and stays as it was, if
    // the words are from another config or are not a state at all.
    void restore(const PlanState& state);

  private:
    // One pass over one shard; the header comment has the letters.
    struct Pass {
        std::uint64_t phase = 0;
        std::uint64_t blocks = 1;  // n
        std::uint64_t start = 0;   // a
        std::uint64_t stride = 1;  // s
        std::uint64_t taken = 0;   // k, below n: a used-up pass is replaced at once
    };

    [[nodiscard]] Pass begin_pass(std::uint64_t shard_tokens);
    [[nodiscard]] Window take(std::uint32_t shard);
    [[nodiscard]] std::vector<std::uint64_t> shard_weights() const;
    [[nodiscard]] std::uint64_t fingerprint() const;
    [[nodiscard]] bool is_valid(const Pass& pass, std::uint64_t shard_tokens) const;

    PlanConfig config_;
    std::uint64_t random_;  // state of the generator
    std::uint64_t batch_ = 0;
    std::vector<Pass> passes_;
};

}  // namespace pygolf
