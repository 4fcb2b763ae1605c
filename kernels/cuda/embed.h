// SPDX-License-Identifier: Apache-2.0
#pragma once
// out[t] = table[tokens[t]] * scale. A negative token -1 - i stands for what row i of `drawn` holds: it was drawn by
// the step before, and the host does not know it yet. Launched on a stream; allocates nothing, waits for nothing.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/sample_types.h"
#include "kernels/tensor.h"

namespace millrace::cuda {

struct EmbedLaunch {
  Matrix table;                               // [V, C] F32, F16 or BF16
  const int32_t* tokens = nullptr;            // [T], each in [0, V) or negative; a row of one outside is NaN
  const DeviceSampleResult* drawn = nullptr;  // null: there are no negative ones
  Matrix out;                                 // [T, C] BF16 or F16
  float scale = 1.0f;
  bool is_dependent = false;  // may start while the kernel before it still runs
};

cudaError_t LaunchEmbed(const EmbedLaunch& launch, cudaStream_t stream);

}  // namespace millrace::cuda
