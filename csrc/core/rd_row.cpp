#include "rd_row.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "pygolf/trellis.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pygolf {
namespace {

// Vectors of eight whatever the instruction set, because a trellis has eight states: the compiler splits them
// where registers are narrower.
constexpr std::size_t kWide = TrellisBranches::kLanes;
typedef float Floats __attribute__((vector_size(kWide * sizeof(float))));
typedef std::int32_t Ints __attribute__((vector_size(kWide * sizeof(std::int32_t))));

// Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, ties to even, below 2^22. Beyond, the
// result is still too large for a code, which is what then matters.
constexpr float kRound = 12582912.0f;

namespace baseline {

inline void permute(Floats& out, const Floats& in, const Ints& from) {
    Floats moved;
    for (std::size_t lane = 0; lane < kWide; ++lane) moved[lane] = in[from[lane]];
    out = moved;
}

}  // namespace baseline

#if defined(__x86_64__)
namespace avx2 {

__attribute__((target("avx2,fma"))) inline void permute(Floats& out, const Floats& in, const Ints& from) {
    out = reinterpret_cast<Floats>(
        _mm256_permutevar8x32_ps(reinterpret_cast<__m256>(in), reinterpret_cast<__m256i>(from)));
}

}  // namespace avx2
#endif

}  // namespace
}  // namespace pygolf

#define PYGOLF_RD_NAMESPACE baseline
#define PYGOLF_RD_TARGET
#include "rd_row.inc"

#if defined(__x86_64__)
#define PYGOLF_RD_NAMESPACE avx2
#define PYGOLF_RD_TARGET __attribute__((target("avx2,fma")))
#include "rd_row.inc"
#endif

namespace pygolf {
namespace {

std::vector<RdKernels> detect() {
    std::vector<RdKernels> supported = {baseline::kKernels};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) supported.push_back(avx2::kKernels);
#endif
    return supported;
}

}  // namespace

TrellisBranches branches_of(int states) {
    TrellisBranches branches{};
    for (std::size_t lane = 0; lane < kWide; ++lane) {
        branches.low.from[lane] = branches.high.from[lane] = static_cast<std::int32_t>(lane);
    }
    std::array<bool, kWide> met{};  // lower predecessors are met first
    const std::span<const TrellisStep> steps = trellis(states);
    for (std::size_t state = 0; state < steps.size(); ++state) {
        for (std::size_t parity = 0; parity < 2; ++parity) {
            const std::size_t to = steps[state][parity];
            TrellisBranches::Branch& branch = met[to] ? branches.high : branches.low;
            met[to] = true;
            branch.from[to] = static_cast<std::int32_t>(state);
            branch.offset[to] = static_cast<float>(2 * parity + (2 * state >= steps.size() ? 1 : 0));
        }
    }
    return branches;
}

std::span<const RdKernels> supported_rd_kernels() {
    static const std::vector<RdKernels> supported = detect();
    return supported;
}

}  // namespace pygolf
