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
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "../cpp/entropy_cases.hpp"
#include "pygolf/entropy.hpp"
#include "pygolf/error.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;
using View = std::span<const std::uint8_t>;

constexpr std::size_t kPrefix = 4;  // rows, columns / 2, what to do, factor of every line
constexpr int kRoundTrip = 1;
constexpr int kNarrow = 2;
constexpr int kFactors = 4;

template <typename Code>
void decode_hostile(View bytes, std::size_t rows, std::size_t cols, const pygolf::LineFactors& factors) {
    std::vector<Code> codes(rows * cols);
    try {
        pygolf::decode_codes(bytes, rows, cols, std::span<Code>(codes), factors, 1);
    } catch (const pygolf::FormatError&) {
    }
}

// The bytes themselves as codes, little-endian.
template <typename Code>
void round_trip(View bytes, std::size_t rows, std::size_t cols, const pygolf::LineFactors& factors) {
    std::vector<Code> codes(rows * cols);
    for (std::size_t i = 0; i < codes.size() * sizeof(Code) && i < bytes.size(); ++i) {
        auto& code = codes[i / sizeof(Code)];
        code = static_cast<Code>(code | static_cast<Code>(std::uint32_t{bytes[i]} << 8 * (i % sizeof(Code))));
    }
    const Bytes encoded =
        pygolf::encode_codes(std::span<const Code>(codes), rows, cols, {pygolf::kMinStreamBits, 1}, factors);
    std::vector<Code> decoded(codes.size());
    pygolf::decode_codes(encoded, rows, cols, std::span<Code>(decoded), factors, 1);
    if (decoded != codes) std::abort();
}

template <typename Code>
void run(int task, View bytes, std::size_t rows, std::size_t cols, const pygolf::LineFactors& factors) {
    if (task & kRoundTrip) return round_trip<Code>(bytes, rows, cols, factors);
    decode_hostile<Code>(bytes, rows, cols, factors);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < kPrefix) return 0;
    const std::size_t rows = data[0];
    const std::size_t cols = data[1] / 2;
    const std::vector<std::int16_t> row_factors(rows, static_cast<std::int8_t>(data[3]));
    const std::vector<std::int16_t> col_factors(cols, static_cast<std::int8_t>(data[3]));
    pygolf::LineFactors factors;
    if (data[2] & kFactors) factors = {row_factors, col_factors};
    const View bytes(data + kPrefix, size - kPrefix);
    data[2] & kNarrow ? run<std::int8_t>(data[2], bytes, rows, cols, factors)
                      : run<std::int32_t>(data[2], bytes, rows, cols, factors);
    return 0;
}

#ifndef PYGOLF_LIBFUZZER
namespace {

Bytes input_of(const pygolf::CodeTensor& tensor, int task) {
    const std::vector<std::int16_t> factors(tensor.rows + tensor.cols, 20);
    pygolf::LineFactors known;
    if (task & kFactors)
        known = {std::span(factors).first(tensor.rows), std::span(factors).first(tensor.cols)};
    const Bytes bytes = pygolf::encode_codes(std::span<const std::int32_t>(tensor.codes), tensor.rows,
                                             tensor.cols, {pygolf::kMinStreamBits, 1}, known);
    Bytes input = {static_cast<std::uint8_t>(tensor.rows), static_cast<std::uint8_t>(2 * tensor.cols),
                   static_cast<std::uint8_t>(task), 20};
    input.insert(input.end(), bytes.begin(), bytes.end());
    return input;
}

std::vector<Bytes> valid_inputs() {
    std::vector<Bytes> inputs;
    for (const auto& [rows, cols] : {std::pair{1, 1}, {3, 5}, {64, 66}, {70, 64}, {2, 127}, {255, 1}}) {
        for (const std::int64_t scale : {1, 40, 100'000, 1'000'000'000}) {
            const auto tensor = pygolf::varied_codes(static_cast<std::size_t>(rows),
                                                     static_cast<std::size_t>(cols), scale, 1);
            for (const int task : {0, kNarrow, kFactors}) inputs.push_back(input_of(tensor, task));
        }
    }
    return inputs;
}

// One to eight changes: a byte flipped, replaced, inserted or removed, mostly near the start, or a cut.
Bytes mutated(Bytes bytes, pygolf::Lcg& random) {
    for (std::uint32_t change = random.next() % 8 + 1; change > 0 && !bytes.empty(); --change) {
        const std::size_t reach = random.next() % 2 ? bytes.size() : std::min<std::size_t>(bytes.size(), 24);
        const auto at = bytes.begin() + static_cast<std::ptrdiff_t>(random.next() % reach);
        const auto value = static_cast<std::uint8_t>(random.next());
        switch (random.next() % 16) {
            case 0:
                bytes.erase(at);
                break;
            case 1:
                bytes.insert(at, value);
                break;
            case 2:
                bytes.resize(random.next() % (bytes.size() + 1));
                break;
            case 3:
            case 4:
            case 5:
                *at = value;
                break;
            default:
                *at = static_cast<std::uint8_t>(*at ^ (1U << value % 8));
        }
    }
    return bytes;
}

}  // namespace

int main(int count, char** arguments) {
    const std::uint64_t executions = count > 1 ? std::stoull(arguments[1]) : 100'000;
    pygolf::Lcg random(count > 2 ? std::stoull(arguments[2]) : 1);
    const std::vector<Bytes> inputs = valid_inputs();
    for (std::uint64_t i = 0; i < executions; ++i) {
        const Bytes input = mutated(inputs[random.next() % inputs.size()], random);
        LLVMFuzzerTestOneInput(input.data(), input.size());
    }
    std::printf("%llu executions, nothing found\n", static_cast<unsigned long long>(executions));
}
#endif
