#include "simd_kernels.hpp"

#include <vector>

// The kernels' text is compiled once for each instruction set: the vector width and the target attribute are
// the only differences, and an attribute cannot be a template argument.

#define PYGOLF_SIMD_NAMESPACE baseline
#define PYGOLF_SIMD_BYTES 16
#define PYGOLF_SIMD_TARGET
#include "simd_kernels.inc"

#if defined(__x86_64__)
#define PYGOLF_SIMD_NAMESPACE avx2
#define PYGOLF_SIMD_BYTES 32
#define PYGOLF_SIMD_TARGET __attribute__((target("avx2,fma")))
#include "simd_kernels.inc"

#define PYGOLF_SIMD_NAMESPACE avx512
#define PYGOLF_SIMD_BYTES 64
#define PYGOLF_SIMD_TARGET __attribute__((target("avx512f,fma")))
#include "simd_kernels.inc"
#endif

namespace pygolf {
namespace {

std::vector<Kernels> detect() {
    std::vector<Kernels> supported = {baseline::kernels("baseline")};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        supported.push_back(avx2::kernels("avx2"));
        if (__builtin_cpu_supports("avx512f")) supported.push_back(avx512::kernels("avx512"));
    }
#endif
    return supported;
}

}  // namespace

std::span<const Kernels> supported_kernels() {
    static const std::vector<Kernels> supported = detect();
    return supported;
}

}  // namespace pygolf
