// SPDX-License-Identifier: Apache-2.0
#pragma once
// out = gate * sigmoid(gate) * up (arXiv 2002.05202), as activations, as int8, or both from one reading. Launched on a
// stream; allocates nothing, waits for nothing.
#include <cuda_runtime_api.h>

#include "kernels/cuda/quantized_rows.h"
#include "kernels/tensor.h"

namespace millrace::cuda {

struct SwiGluLaunch {
  Matrix gate_up;  // [T, 2F] BF16 or F16: gate then up
  Matrix out;  // [T, F], gate_up's dtype; must not overlap it; data null (rows and cols still given): only `quantized`
  QuantizedRows quantized;
  bool is_dependent = false;
};

cudaError_t LaunchSwiGlu(const SwiGluLaunch& launch, cudaStream_t stream);

}  // namespace millrace::cuda
