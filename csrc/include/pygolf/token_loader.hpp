// Batches of tokens, written by a prefetch thread from the shards' maps straight into the caller's buffers.
//
// A buffer is a row-major [windows_per_batch / world_size, sequence_length + 1] array of uint16; row j of
// rank r is window r + j * world_size of the plan's batch. Buffers go round: empty -> filled by the thread ->
// handed out by next() -> given back by release(). With two or more the thread works while the caller does.
//
// Ownership: the loader owns shards, plan and thread; the caller owns the buffers, which must live, and must
// not be written to unless handed out, until close() returned or the loader is destroyed.
// Thread safety: next, try_next_for, release, state, wait_seconds and close may be called from any threads at
// once. Destroying the loader while another thread is inside one of them is the caller's mistake.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "pygolf/batch_plan.hpp"
#include "pygolf/token_shard.hpp"

namespace pygolf {

struct LoaderConfig {
    std::vector<ShardRange> ranges;
    std::uint64_t seed = 0;
    std::uint32_t sequence_length = 0;    // T
    std::uint32_t windows_per_batch = 0;  // over all ranks
    std::uint32_t rank = 0;
    std::uint32_t world_size = 1;
    std::uint32_t vocab_size = 0;  // a token id that is not below it is an error
    std::uint32_t mixing_ranks = kDefaultMixingRanks;
};

class TokenLoader {
  public:
    using Buffer = std::span<std::uint16_t>;

    // Opens and checks every shard, then starts the thread; a state() makes it go on from there. Throws
    // ArgumentError (also for a range that its shard does not have) and what TokenShard::open and BatchPlan
    // throw.
    TokenLoader(LoaderConfig config, std::vector<Buffer> buffers, const std::optional<PlanState>& state = {});
    TokenLoader(const TokenLoader&) = delete;
    TokenLoader& operator=(const TokenLoader&) = delete;
    ~TokenLoader();

    // Waits for the next batch and returns the index of its buffer. Throws what stopped the thread
    // (FormatError for a token id outside the vocabulary) once the batches before it are handed out, and
    // ArgumentError if the loader is closed or the caller holds every buffer, for which it would wait
    // forever.
    [[nodiscard]] std::size_t next();

    // The same, but gives up after `patience`: for callers that must look at something else meanwhile.
    [[nodiscard]] std::optional<std::size_t> try_next_for(std::chrono::milliseconds patience);

    // Gives a buffer that next() handed out back to the thread. Throws ArgumentError for any other index.
    void release(std::size_t index);

    // The plan's state after the last batch that next() handed out: prefetched batches do not count.
    [[nodiscard]] PlanState state() const;

    // How long next() has waited for batches, in seconds, all calls together.
    [[nodiscard]] double wait_seconds() const;

    // Stops the thread and wakes whoever waits in next(). Closing twice is fine.
    void close();

  private:
    enum class Holder { kThread, kReady, kCaller };  // kThread: empty or being filled
    struct Ready {
        std::size_t index = 0;
        PlanState state_after;
    };

    void check_buffers() const;
    void run();
    void fill(Buffer buffer, const std::vector<Window>& windows) const;
    void copy_window(const Window& window, Buffer row) const;
    [[nodiscard]] std::optional<std::size_t> wait_for_empty();
    void publish(Ready ready);
    [[nodiscard]] bool all_handed_out() const;
    [[nodiscard]] std::size_t hand_out();

    LoaderConfig config_;
    std::vector<Buffer> buffers_;
    std::vector<TokenShard> shards_;                      // one a range
    std::vector<std::span<const std::uint16_t>> ranges_;  // the tokens of each range
    BatchPlan plan_;                                      // the thread's alone once it runs

    mutable std::mutex mutex_;  // guards all up to stopping_
    std::condition_variable changed_;
    std::vector<Holder> holders_;    // of each buffer
    std::deque<std::size_t> empty_;  // to be filled next, in order of release
    std::deque<Ready> ready_;        // to be handed out next
    PlanState handed_out_state_;
    std::exception_ptr error_;
    std::chrono::steady_clock::duration waited_{};
    bool stopping_ = false;

    std::mutex joining_;  // guards thread_
    std::thread thread_;
};

}  // namespace pygolf
