// What the operators share: checks of arguments, views of tensors as spans, and errors with their type's
// name.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
#include <span>
#include <stdexcept>
#include <string>
#include <tuple>

#include "pygolf/error.hpp"

namespace pygolf {

// Runs body(). Torch turns every exception into a RuntimeError, so the class goes into the text, as
// "NumericError: ..."; pygolf/ops.py raises the Python exception of that name.
template <typename Body>
auto with_typed_errors(const Body& body) {
    try {
        return body();
    } catch (const ArgumentError& error) {
        throw std::runtime_error(std::string("ArgumentError: ") + error.what());
    } catch (const NumericError& error) {
        throw std::runtime_error(std::string("NumericError: ") + error.what());
    }
}

// The tensor, made contiguous. ArgumentError unless it has this dtype and (if dim >= 0) this number of
// dimensions.
torch::stable::Tensor checked(const torch::stable::Tensor& tensor, const char* name,
                              torch::headeronly::ScalarType dtype, std::int64_t dim = -1);

// ArgumentError unless the tensor has these sizes; it must have as many dimensions.
void check_shape(const torch::stable::Tensor& tensor, const char* name,
                 std::initializer_list<std::int64_t> expected);

// ArgumentError if the value does not fit; the range that makes sense is checked by who uses it.
int checked_int(std::int64_t value, const char* name);

// The checks of unpack and dequantize, the same on every device. Return the arguments made contiguous.
torch::stable::Tensor checked_packed(const torch::stable::Tensor& packed, std::int64_t bits,
                                     std::int64_t count);
std::tuple<torch::stable::Tensor, torch::stable::Tensor> checked_rows(const torch::stable::Tensor& codes,
                                                                      const torch::stable::Tensor& scales);

// Uninitialised contiguous tensor on the device of `beside`.
torch::stable::Tensor empty_beside(const torch::stable::Tensor& beside, torch::headeronly::ScalarType dtype,
                                   std::initializer_list<std::int64_t> sizes);

// The elements of a contiguous CPU tensor, whose dtype must have been checked; Half is read as uint16_t.
template <typename T>
std::span<const T> elements(const torch::stable::Tensor& tensor) {
    return {static_cast<const T*>(tensor.const_data_ptr()), static_cast<std::size_t>(tensor.numel())};
}

template <typename T>
std::span<T> mutable_elements(const torch::stable::Tensor& tensor) {
    return {static_cast<T*>(tensor.mutable_data_ptr()), static_cast<std::size_t>(tensor.numel())};
}

}  // namespace pygolf
