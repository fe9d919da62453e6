// Python classes TokenShard, BatchPlan and TokenLoader.
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "host_objects.hpp"
#include "pygolf/batch_plan.hpp"
#include "pygolf/error.hpp"
#include "pygolf/token_loader.hpp"
#include "pygolf/token_shard.hpp"

namespace pygolf::binding {
namespace {

using namespace py::literals;  // "name"_a

// Waiting is cut into pieces of this length, so that Ctrl-C is noticed.
constexpr std::chrono::milliseconds kSignalInterval{100};

using PyRange = std::tuple<std::filesystem::path, std::int64_t, std::optional<std::int64_t>>;

std::uint64_t range_bound(const PyRange& range, const char* name, std::int64_t value) {
    if (value < 0) {
        fail<ArgumentError>(std::get<0>(range).string(), ": range ", name, " is ", value,
                            ", expected 0 or more");
    }
    return static_cast<std::uint64_t>(value);
}

std::vector<ShardRange> shard_ranges(const std::vector<PyRange>& ranges) {
    std::vector<ShardRange> result;
    for (const auto& range : ranges) {
        const auto& [path, begin, end] = range;
        result.push_back(
            {path, range_bound(range, "begin", begin), end ? range_bound(range, "end", *end) : kToEnd});
    }
    return result;
}

std::string text(const py::handle& value) { return py::cast<std::string>(py::str(value)); }

// The memory of each array; the arrays must outlive the result. TokenLoader itself checks the number of rows.
std::vector<TokenLoader::Buffer> buffer_spans(std::vector<py::array>& buffers,
                                              std::uint32_t sequence_length) {
    const std::int64_t columns = std::int64_t{sequence_length} + 1;
    std::vector<TokenLoader::Buffer> spans;
    for (auto& buffer : buffers) {
        const bool fits = py::isinstance<py::array_t<std::uint16_t, py::array::c_style>>(buffer) &&
                          buffer.writeable() && buffer.ndim() == 2 && buffer.shape(1) == columns;
        if (!fits) {
            fail<ArgumentError>(
                "buffer ", spans.size(), " is a ", buffer.writeable() ? "" : "read-only ",
                text(buffer.dtype()), " array of shape ", text(buffer.attr("shape")), " and strides ",
                text(buffer.attr("strides")), ", expected a writable C-contiguous uint16 array of ",
                "shape (windows_per_batch / world_size, sequence_length + 1 = ", columns, ")");
        }
        spans.emplace_back(static_cast<std::uint16_t*>(buffer.mutable_data()),
                           static_cast<std::size_t>(buffer.size()));
    }
    return spans;
}

// Keeps the caller's arrays alive for as long as the thread writes into them, and lets go of the GIL to wait.
class PyTokenLoader {
  public:
    PyTokenLoader(const LoaderConfig& config, std::vector<py::array> buffers,
                  const std::optional<PlanState>& state)
        : buffers_(std::move(buffers)),
          loader_(config, buffer_spans(buffers_, config.sequence_length), state) {}

    std::size_t next() {
        while (true) {
            if (const auto index = next_or_signal()) return *index;
            if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        }
    }

    void close() {
        const py::gil_scoped_release nogil;
        loader_.close();
    }

    TokenLoader& loader() { return loader_; }

  private:
    std::optional<std::size_t> next_or_signal() {
        const py::gil_scoped_release nogil;
        return loader_.try_next_for(kSignalInterval);
    }

    std::vector<py::array> buffers_;
    TokenLoader loader_;  // after the buffers: destroyed, thread and all, before them
};

std::unique_ptr<PyTokenLoader> make_loader(const std::vector<PyRange>& ranges, std::uint64_t seed,
                                           std::uint32_t sequence_length, std::uint32_t windows_per_batch,
                                           std::uint32_t rank, std::uint32_t world_size,
                                           std::uint32_t vocab_size, std::vector<py::array> buffers,
                                           std::uint32_t mixing_ranks,
                                           const std::optional<PlanState>& state) {
    const LoaderConfig config{.ranges = shard_ranges(ranges),
                              .seed = seed,
                              .sequence_length = sequence_length,
                              .windows_per_batch = windows_per_batch,
                              .rank = rank,
                              .world_size = world_size,
                              .vocab_size = vocab_size,
                              .mixing_ranks = mixing_ranks};
    return std::make_unique<PyTokenLoader>(config, std::move(buffers), state);
}

py::tuple next_windows(BatchPlan& plan) {
    const auto windows = plan.next();
    py::array_t<std::uint32_t> shards(static_cast<py::ssize_t>(windows.size()));
    py::array_t<std::uint64_t> starts(static_cast<py::ssize_t>(windows.size()));
    std::transform(windows.begin(), windows.end(), shards.mutable_data(),
                   [](const Window& w) { return w.shard; });
    std::transform(windows.begin(), windows.end(), starts.mutable_data(),
                   [](const Window& w) { return w.start; });
    return py::make_tuple(shards, starts);
}

void bind_token_shard(py::module_& module) {
    py::class_<TokenShard>(
        module, "TokenShard",
        "A memory-mapped shard file; opening it checks header and size (FORMAT.md, rules S1 to S6).")
        .def(py::init(&TokenShard::open), "path"_a)
        .def_property_readonly("path", &TokenShard::path)
        .def_property_readonly("token_count", [](const TokenShard& shard) { return shard.tokens().size(); })
        .def_property_readonly(
            "tokens",
            [](const py::object& self) {
                const auto tokens = self.cast<const TokenShard&>().tokens();
                return read_only_view(py::dtype::of<std::uint16_t>(), {tokens.size()}, tokens.data(), self);
            },
            "uint16 [token_count], read-only, not copied: a view of the map, which it keeps alive.");
}

void bind_batch_plan(py::module_& module) {
    py::class_<BatchPlan>(
        module, "BatchPlan",
        "Which windows of which shards make up each batch; a pure function of its arguments. "
        "csrc/include/pygolf/batch_plan.hpp has the rule.")
        .def(py::init([](std::uint64_t seed, std::vector<std::uint64_t> shard_tokens,
                         std::uint32_t sequence_length, std::uint32_t windows_per_batch,
                         std::uint32_t mixing_ranks) {
                 return BatchPlan({.seed = seed,
                                   .shard_tokens = std::move(shard_tokens),
                                   .sequence_length = sequence_length,
                                   .windows_per_batch = windows_per_batch,
                                   .mixing_ranks = mixing_ranks});
             }),
             py::kw_only(), "seed"_a, "shard_tokens"_a, "sequence_length"_a, "windows_per_batch"_a,
             "mixing_ranks"_a = kDefaultMixingRanks)
        .def(
            "next", &next_windows,
            "(shard uint32 [G], start uint64 [G]) of the next batch; rank r of R takes windows r, r + R, ...")
        .def("state", &BatchPlan::state, "What decides the batches to come, as integers for restore().")
        .def("restore", &BatchPlan::restore, "state"_a);
}

void bind_token_loader(py::module_& module) {
    py::class_<PyTokenLoader>(
        module, "TokenLoader",
        "Batches of a BatchPlan over shard ranges (path, begin, end or None), written by a prefetch thread\n"
        "into the caller's uint16 buffers [windows_per_batch / world_size, sequence_length + 1].\n"
        "A context manager.")
        .def(py::init(&make_loader), "ranges"_a, py::kw_only(), "seed"_a, "sequence_length"_a,
             "windows_per_batch"_a, "rank"_a, "world_size"_a, "vocab_size"_a, "buffers"_a,
             "mixing_ranks"_a = kDefaultMixingRanks, "state"_a = py::none())
        .def("next", &PyTokenLoader::next,
             "Waits for a batch and returns its buffer's index. Raises FormatError for a token outside the "
             "vocabulary,\nArgumentError if the loader is closed or every buffer is handed out.")
        .def(
            "release", [](PyTokenLoader& self, std::size_t index) { self.loader().release(index); },
            "index"_a, "Gives a buffer that next() returned back, to be filled again.")
        .def(
            "state", [](PyTokenLoader& self) { return self.loader().state(); },
            "The plan's state after the last batch that next() returned, whatever was prefetched since.")
        .def_property_readonly(
            "wait_seconds", [](PyTokenLoader& self) { return self.loader().wait_seconds(); },
            "Seconds that all calls of next() have waited.")
        .def("close", &PyTokenLoader::close, "Stops the prefetch thread; the buffers are the caller's again.")
        .def("__enter__", [](const py::object& self) { return self; })
        .def("__exit__", [](PyTokenLoader& self, const py::args&) { self.close(); });
}

}  // namespace

void bind_loader(py::module_& module) {
    bind_token_shard(module);
    bind_batch_plan(module);
    bind_token_loader(module);
}

}  // namespace pygolf::binding
