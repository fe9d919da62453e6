// What the fuzz targets share: with libFuzzer (-DPYGOLF_LIBFUZZER) nothing, without it a loop that changes
// valid inputs at random. A target defines LLVMFuzzerTestOneInput and, for the loop, valid_inputs().
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "../cpp/entropy_cases.hpp"

using Bytes = std::vector<std::uint8_t>;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

#ifndef PYGOLF_LIBFUZZER
std::vector<Bytes> valid_inputs();

// One to eight changes: a byte flipped, replaced, inserted or removed, mostly near the start, or a cut.
inline Bytes mutated(Bytes bytes, pygolf::Lcg& random) {
    for (std::uint32_t change = random.next() % 8 + 1; change > 0 && !bytes.empty(); --change) {
        const std::size_t reach =
            std::array{bytes.size(), std::size_t{24}, std::size_t{128}}[random.next() % 3];
        const auto at =
            bytes.begin() + static_cast<std::ptrdiff_t>(random.next() % std::min(reach, bytes.size()));
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

// TARGET EXECUTIONS [SEED]
int main(int count, char** arguments) {
    const std::uint64_t executions = count > 1 ? std::stoull(arguments[1]) : 100'000;
    pygolf::Lcg random(count > 2 ? std::stoull(arguments[2]) : 1);
    const std::vector<Bytes> inputs = valid_inputs();
    for (const Bytes& input : inputs) LLVMFuzzerTestOneInput(input.data(), input.size());
    for (std::uint64_t i = 0; i < executions; ++i) {
        const Bytes input = mutated(inputs[random.next() % inputs.size()], random);
        LLVMFuzzerTestOneInput(input.data(), input.size());
    }
    std::printf("%llu executions, nothing found\n", static_cast<unsigned long long>(executions));
}
#endif
