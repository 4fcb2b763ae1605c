// SPDX-License-Identifier: Apache-2.0
#pragma once
// Float tensors of a checkpoint file as rows of float32, whatever their stored format and alignment. Any thread.
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/load/weight_builder.h"
#include "kernels/tensor.h"

namespace millrace {

// F32, F16 and BF16 as safetensors spells them; nothing for others.
std::optional<DType> FloatDType(std::string_view safetensors_dtype);

// Converts `count` values from element `first` on. REQUIRES: dtype kF32, kF16 or kBF16.
void ReadFloats(const void* data, DType dtype, int64_t first, int64_t count, float* out);

// Row-major [n, k]; `data` must outlive the rows.
MatrixRows FloatRows(const void* data, DType dtype, int64_t n, int64_t k);
std::vector<float> FloatVector(const void* data, DType dtype, int64_t n);

}  // namespace millrace
