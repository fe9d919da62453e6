#include "pygolf/token_loader.hpp"

#include <algorithm>
#include <functional>
#include <utility>

#include "pygolf/error.hpp"

namespace pygolf {
namespace {

using Tokens = std::span<const std::uint16_t>;
using Clock = std::chrono::steady_clock;

LoaderConfig checked(LoaderConfig config) {
    if (config.rank >= config.world_size) {
        fail<ArgumentError>("rank is ", config.rank, ", expected below world_size, which is ",
                            config.world_size);
    }
    if (config.windows_per_batch % config.world_size != 0) {
        fail<ArgumentError>("windows_per_batch is ", config.windows_per_batch,
                            ", expected a multiple of world_size, which is ", config.world_size,
                            "; change the batch or the number of processes");
    }
    if (config.vocab_size == 0) {
        fail<ArgumentError>(
            "vocab_size is 0, expected 1 or more; pass the size of the tokenizer that made the shards");
    }
    return config;
}

std::vector<TokenShard> open_shards(const std::vector<ShardRange>& ranges) {
    std::vector<TokenShard> shards;
    shards.reserve(ranges.size());
    for (const auto& range : ranges) shards.push_back(TokenShard::open(range.path));
    return shards;
}

Tokens range_tokens(const ShardRange& range, Tokens tokens, std::uint32_t sequence_length) {
    const auto end = range.end == kToEnd ? tokens.size() : range.end;
    if (range.begin >= end || end > tokens.size()) {
        fail<ArgumentError>(range.path.string(), ": range [", range.begin, ", ", end,
                            ") does not fit, expected begin < end <= ", tokens.size(),
                            " (the shard's token count)");
    }
    const std::uint64_t least = std::uint64_t{sequence_length} + 1;
    if (end - range.begin < least) {
        fail<ArgumentError>(range.path.string(), ": range [", range.begin, ", ", end, ") has ",
                            end - range.begin, " tokens, expected at least ", least,
                            " (sequence_length + 1); leave it out or use a shorter sequence_length");
    }
    return tokens.subspan(range.begin, end - range.begin);
}

std::vector<Tokens> all_range_tokens(const LoaderConfig& config, const std::vector<TokenShard>& shards) {
    std::vector<Tokens> ranges;
    for (std::size_t i = 0; i < shards.size(); ++i) {
        ranges.push_back(range_tokens(config.ranges[i], shards[i].tokens(), config.sequence_length));
    }
    return ranges;
}

PlanConfig plan_config(const LoaderConfig& config, const std::vector<Tokens>& ranges) {
    PlanConfig plan{config.seed, {}, config.sequence_length, config.windows_per_batch, config.mixing_ranks};
    for (const auto& tokens : ranges) plan.shard_tokens.push_back(tokens.size());
    return plan;
}

[[noreturn]] void fail_vocabulary(const TokenShard& shard, Tokens tokens, std::uint32_t vocab_size) {
    const auto bad =
        std::find_if(tokens.begin(), tokens.end(), [&](auto token) { return token >= vocab_size; });
    fail<FormatError>("[S7] ", shard.path().string(), ": token ", &*bad - shard.tokens().data(), " is ", *bad,
                      ", expected below the vocabulary size ", vocab_size,
                      "; was the shard made with another tokenizer?");
}

}  // namespace

TokenLoader::TokenLoader(LoaderConfig config, std::vector<Buffer> buffers,
                         const std::optional<PlanState>& state)
    : config_(checked(std::move(config))),
      buffers_(std::move(buffers)),
      shards_(open_shards(config_.ranges)),
      ranges_(all_range_tokens(config_, shards_)),
      plan_(plan_config(config_, ranges_)),
      holders_(buffers_.size(), Holder::kThread) {
    check_buffers();
    if (state) plan_.restore(*state);
    handed_out_state_ = plan_.state();
    for (std::size_t i = 0; i < buffers_.size(); ++i) empty_.push_back(i);
    thread_ = std::thread(&TokenLoader::run, this);
}

TokenLoader::~TokenLoader() { close(); }

void TokenLoader::check_buffers() const {
    if (buffers_.empty()) fail<ArgumentError>("there are no buffers, expected 1 or more (2 to prefetch)");
    const std::size_t rows = config_.windows_per_batch / config_.world_size;
    const std::size_t columns = std::size_t{config_.sequence_length} + 1;
    for (std::size_t i = 0; i < buffers_.size(); ++i) {
        if (buffers_[i].size() == rows * columns) continue;
        fail<ArgumentError>("buffer ", i, " holds ", buffers_[i].size(), " tokens, expected ", rows * columns,
                            " = ", rows,
                            " rows (windows_per_batch / world_size) of sequence_length + 1 = ", columns);
    }
    auto sorted = buffers_;
    std::sort(sorted.begin(), sorted.end(),
              [](Buffer a, Buffer b) { return std::less<>{}(a.data(), b.data()); });
    for (std::size_t i = 1; i < sorted.size(); ++i) {
        if (std::less<>{}(sorted[i].data(), sorted[i - 1].data() + rows * columns)) {
            fail<ArgumentError>(
                "two buffers overlap, expected memory of its own for each; allocate one array a buffer");
        }
    }
}

void TokenLoader::run() try {
    while (const auto index = wait_for_empty()) {
        fill(buffers_[*index], plan_.next());
        publish({*index, plan_.state()});
    }
} catch (...) {
    const std::lock_guard lock(mutex_);
    error_ = std::current_exception();
    changed_.notify_all();
}

std::optional<std::size_t> TokenLoader::wait_for_empty() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stopping_ || !empty_.empty(); });
    if (stopping_) return std::nullopt;
    const auto index = empty_.front();
    empty_.pop_front();
    return index;
}

void TokenLoader::fill(Buffer buffer, const std::vector<Window>& windows) const {
    const std::size_t columns = std::size_t{config_.sequence_length} + 1;
    for (std::size_t row = 0; row < buffer.size() / columns; ++row) {
        copy_window(windows[config_.rank + row * config_.world_size], buffer.subspan(row * columns, columns));
    }
}

void TokenLoader::copy_window(const Window& window, Buffer row) const {
    const Tokens tokens = ranges_[window.shard].subspan(window.start, row.size());
    std::uint16_t largest = 0;
    for (std::size_t i = 0; i < row.size(); ++i) {
        row[i] = tokens[i];
        largest = std::max(largest, tokens[i]);
    }
    if (largest >= config_.vocab_size) fail_vocabulary(shards_[window.shard], tokens, config_.vocab_size);
}

void TokenLoader::publish(Ready ready) {
    const std::lock_guard lock(mutex_);
    holders_[ready.index] = Holder::kReady;
    ready_.push_back(std::move(ready));
    changed_.notify_all();
}

std::size_t TokenLoader::next() {
    while (true) {
        if (const auto index = try_next_for(std::chrono::hours(1))) return *index;
    }
}

std::optional<std::size_t> TokenLoader::try_next_for(std::chrono::milliseconds patience) {
    std::unique_lock lock(mutex_);
    const auto begin = Clock::now();
    changed_.wait_for(lock, patience, [this] {
        return stopping_ || !ready_.empty() || error_ != nullptr || all_handed_out();
    });
    waited_ += Clock::now() - begin;
    if (stopping_) fail<ArgumentError>("the token loader is closed; make a new one from state()");
    if (!ready_.empty()) return hand_out();
    if (error_ != nullptr) std::rethrow_exception(error_);
    if (all_handed_out()) {
        fail<ArgumentError>("next() would wait forever: all ", buffers_.size(),
                            " buffers are handed out; release() one first");
    }
    return std::nullopt;
}

bool TokenLoader::all_handed_out() const {
    return std::all_of(holders_.begin(), holders_.end(),
                       [](Holder holder) { return holder == Holder::kCaller; });
}

std::size_t TokenLoader::hand_out() {
    const auto index = ready_.front().index;
    handed_out_state_ = std::move(ready_.front().state_after);
    ready_.pop_front();
    holders_[index] = Holder::kCaller;
    changed_.notify_all();
    return index;
}

void TokenLoader::release(std::size_t index) {
    const std::lock_guard lock(mutex_);
    if (index >= holders_.size() || holders_[index] != Holder::kCaller) {
        fail<ArgumentError>("buffer ", index,
                            " is not handed out; release() takes, once, an index that next() returned");
    }
    holders_[index] = Holder::kThread;
    empty_.push_back(index);
    changed_.notify_all();
}

PlanState TokenLoader::state() const {
    const std::lock_guard lock(mutex_);
    return handed_out_state_;
}

double TokenLoader::wait_seconds() const {
    const std::lock_guard lock(mutex_);
    return std::chrono::duration<double>(waited_).count();
}

void TokenLoader::close() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
        changed_.notify_all();
    }
    const std::lock_guard lock(joining_);
    if (thread_.joinable()) thread_.join();
}

}  // namespace pygolf
