// SPDX-License-Identifier: Apache-2.0
#pragma once
// Activations to int8 rows where no kernel before could do it on the way. Launched on a stream; allocates nothing,
// waits for nothing.
#include <cuda_runtime_api.h>

#include "kernels/cuda/quantized_rows.h"
#include "kernels/tensor.h"

namespace millrace::cuda {

struct QuantizeRowsLaunch {
  Matrix x;  // [T, K] BF16 or F16
  QuantizedRows out;
  bool is_dependent = false;
};

cudaError_t LaunchQuantizeRows(const QuantizeRowsLaunch& launch, cudaStream_t stream);

}  // namespace millrace::cuda
