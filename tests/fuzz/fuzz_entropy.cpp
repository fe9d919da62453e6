// Fuzz target of the entropy coder: hostile bytes end in codes or in a FormatError, and codes come back from
// their bytes. Build it with sanitizers, from the repository root:
//
//     clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -DPYGOLF_LIBFUZZER -Icsrc/include
//         csrc/core/entropy*.cpp tests/fuzz/fuzz_entropy.cpp -o fuzz_entropy && ./fuzz_entropy
//     g++ -std=c++20 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -Icsrc/include
//         csrc/core/entropy*.cpp tests/fuzz/fuzz_entropy.cpp -pthread -o fuzz_entropy && ./fuzz_entropy
//         1000000
//
// Without libFuzzer, a loop of its own mutates valid inputs: fuzz_entropy EXECUTIONS [SEED].
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "mutate.hpp"
#include "pygolf/entropy.hpp"
#include "pygolf/error.hpp"

namespace {

using View = std::span<const std::uint8_t>;

constexpr std::size_t kPrefix = 4;  // rows, columns / 2, what to do, factor of every line
constexpr int kRoundTrip = 1;
constexpr int kNarrow = 2;
constexpr int kFactors = 4;
constexpr int kTrellis = 8;
constexpr int kEightStates = 16;

// What is known of lines: with a trellis, every other column is outside it.
std::vector<std::int16_t> factors_of(std::size_t lines, int factor) {
    std::vector<std::int16_t> factors(lines, static_cast<std::int16_t>(factor));
    for (std::size_t i = 1; i < lines; i += 2) ++factors[i];
    return factors;
}

int states_of(int task) { return task & kTrellis ? (task & kEightStates ? 8 : 4) : 1; }

template <typename Code>
void decode_hostile(View bytes, std::size_t rows, std::size_t cols, const pygolf::SideInformation& side) {
    std::vector<Code> codes(rows * cols);
    try {
        pygolf::decode_codes(bytes, rows, cols, std::span<Code>(codes), side, 1);
    } catch (const pygolf::FormatError&) {
    }
}

// The bytes themselves as codes, little-endian.
template <typename Code>
void round_trip(View bytes, std::size_t rows, std::size_t cols, const pygolf::SideInformation& side) {
    std::vector<Code> codes(rows * cols);
    for (std::size_t i = 0; i < codes.size() * sizeof(Code) && i < bytes.size(); ++i) {
        auto& code = codes[i / sizeof(Code)];
        code = static_cast<Code>(code | static_cast<Code>(std::uint32_t{bytes[i]} << 8 * (i % sizeof(Code))));
    }
    const Bytes encoded =
        pygolf::encode_codes(std::span<const Code>(codes), rows, cols, {pygolf::kMinStreamBits, 1}, side);
    std::vector<Code> decoded(codes.size());
    pygolf::decode_codes(encoded, rows, cols, std::span<Code>(decoded), side, 1);
    if (decoded != codes) std::abort();
}

template <typename Code>
void run(int task, View bytes, std::size_t rows, std::size_t cols, const pygolf::SideInformation& side) {
    if (task & kRoundTrip) return round_trip<Code>(bytes, rows, cols, side);
    decode_hostile<Code>(bytes, rows, cols, side);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < kPrefix) return 0;
    const std::size_t rows = data[0];
    const std::size_t cols = data[1] / 2;
    const auto row_factors = factors_of(rows, static_cast<std::int8_t>(data[3]));
    const auto col_factors = factors_of(cols, static_cast<std::int8_t>(data[3]));
    pygolf::SideInformation side;
    if (data[2] & kFactors) side = {row_factors, col_factors};
    side.states = states_of(data[2]);
    const View bytes(data + kPrefix, size - kPrefix);
    data[2] & kNarrow    ? run<std::int8_t>(data[2], bytes, rows, cols, side)
    : data[2] & kTrellis ? run<std::int16_t>(data[2], bytes, rows, cols, side)
                         : run<std::int32_t>(data[2], bytes, rows, cols, side);
    return 0;
}

#ifndef PYGOLF_LIBFUZZER
namespace {

Bytes input_of(const pygolf::CodeTensor& tensor, int task) {
    const auto row_factors = factors_of(tensor.rows, 20);
    const auto col_factors = factors_of(tensor.cols, 20);
    pygolf::SideInformation known;
    if (task & kFactors) known = {row_factors, col_factors};
    known.states = states_of(task);
    const Bytes bytes = pygolf::encode_codes(std::span<const std::int32_t>(tensor.codes), tensor.rows,
                                             tensor.cols, {pygolf::kMinStreamBits, 1}, known);
    Bytes input = {static_cast<std::uint8_t>(tensor.rows), static_cast<std::uint8_t>(2 * tensor.cols),
                   static_cast<std::uint8_t>(task), 20};
    input.insert(input.end(), bytes.begin(), bytes.end());
    return input;
}

}  // namespace

std::vector<Bytes> valid_inputs() {
    std::vector<Bytes> inputs;
    for (const auto& [rows, cols] : {std::pair{1, 1}, {3, 5}, {64, 66}, {70, 64}, {2, 127}, {255, 1}}) {
        for (const std::int64_t scale : {1, 40, 100'000, 1'000'000'000}) {
            const auto tensor = pygolf::varied_codes(static_cast<std::size_t>(rows),
                                                     static_cast<std::size_t>(cols), scale, 1);
            for (const int task : {0, kNarrow, kFactors, kTrellis, kFactors | kTrellis | kEightStates})
                inputs.push_back(input_of(tensor, task));
        }
    }
    return inputs;
}
#endif
