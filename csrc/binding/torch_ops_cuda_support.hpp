// What the CUDA operators share.
#pragma once

#include <cuda_runtime_api.h>

#include "torch_ops_support.hpp"

// Only CUDA builds of torch have this function. As a weak symbol it does not keep the library from loading
// elsewhere, where no CUDA kernel can be reached.
#pragma weak aoti_torch_get_current_cuda_stream

namespace pygolf {

inline cudaStream_t current_stream(const torch::stable::Tensor& tensor) {
    void* stream = nullptr;
    if (aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream) != AOTI_TORCH_SUCCESS) {
        fail<Error>("torch gave no current CUDA stream for device ", tensor.get_device_index());
    }
    return static_cast<cudaStream_t>(stream);
}

}  // namespace pygolf
