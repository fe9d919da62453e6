// Independent tasks over threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <thread>
#include <vector>

namespace pygolf {

// `requested` threads, or one a core if that is 0 or less.
[[nodiscard]] inline std::size_t thread_count(int requested) {
    if (requested > 0) return static_cast<std::size_t>(requested);
    return std::max(1U, std::thread::hardware_concurrency());
}

// Calls task(i) for every i < count on up to `threads` threads (0: one a core), in no fixed order: tasks must
// write to different places. Runs all of them and then rethrows the exception of the lowest i, so that what
// is reported does not depend on timing.
template <typename Task>
void parallel_for(std::size_t count, int threads, const Task& task) {
    std::vector<std::exception_ptr> errors(count);
    std::atomic<std::size_t> next = 0;
    const auto work = [&] {
        for (std::size_t i = next++; i < count; i = next++) {
            try {
                task(i);
            } catch (...) {
                errors[i] = std::current_exception();
            }
        }
    };
    {
        // Joined at the end of the block; the caller is one of the workers.
        std::vector<std::jthread> helpers;
        for (std::size_t i = 1; i < std::min(thread_count(threads), count); ++i) helpers.emplace_back(work);
        work();
    }
    for (const auto& error : errors) {
        if (error) std::rethrow_exception(error);
    }
}

}  // namespace pygolf
