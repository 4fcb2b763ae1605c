// SPDX-License-Identifier: Apache-2.0
#pragma once
// out[t] = table[tokens[t]] * scale. Launched on a stream; allocates nothing, waits for nothing.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/tensor.h"

namespace millrace::cuda {

struct EmbedLaunch {
  Matrix table;                     // [V, C] F32, F16 or BF16
  const int32_t* tokens = nullptr;  // [T], each in [0, V); a row of one outside is NaN
  Matrix out;                       // [T, C] BF16 or F16
  float scale = 1.0f;
  int32_t first_token = 0;  // as in EmbedArgs (kernels/ops.h)
  int32_t whole_tokens = 0;
  bool is_dependent = false;  // may start while the kernel before it still runs
};

cudaError_t LaunchEmbed(const EmbedLaunch& launch, cudaStream_t stream);

}  // namespace millrace::cuda
