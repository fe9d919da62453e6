// Turns a failed kernel launch into an exception.
#pragma once

#include <cuda_runtime_api.h>

#include "pygolf/error.hpp"

namespace pygolf::cuda {

inline void check_launch(const char* kernel) {
    if (const cudaError_t status = cudaGetLastError(); status != cudaSuccess) {
        fail<Error>("launch of CUDA kernel ", kernel, " failed: ", cudaGetErrorName(status), ", ",
                    cudaGetErrorString(status), "; run with CUDA_LAUNCH_BLOCKING=1 to find the failing call");
    }
}

}  // namespace pygolf::cuda
