// SPDX-License-Identifier: Apache-2.0
#pragma once
// out = x / sqrt(mean(x^2) + eps) * weight, row by row (arXiv 1910.07467), as activations, as int8, or both from one
// reading. Launched on a stream; allocates nothing, waits for nothing.
#include <cuda_runtime_api.h>

#include "kernels/cuda/quantized_rows.h"
#include "kernels/tensor.h"

namespace millrace::cuda {

struct RmsNormLaunch {
  Matrix x;                       // [T, C] BF16 or F16
  const float* weight = nullptr;  // [C]
  float eps = 1e-6f;
  Matrix out;  // [T, C], x's dtype, may be x itself; data null: only `quantized` is wanted
  QuantizedRows quantized;
  bool is_dependent = false;
};

cudaError_t LaunchRmsNorm(const RmsNormLaunch& launch, cudaStream_t stream);

}  // namespace millrace::cuda
