// SPDX-License-Identifier: Apache-2.0
#pragma once
// Log-probabilities and ranks of given tokens in raw logits, and the best beside them (prompt_logprobs). A row with a
// NaN, a plus infinity or nothing finite gives NaN and no best tokens. Launched on a stream; allocates nothing.
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/sample_types.h"
#include "kernels/tensor.h"

namespace millrace::cuda {

struct LogprobsLaunch {
  Matrix logits;                          // [R, V] F32; only read
  const int32_t* targets = nullptr;       // [R]; negative: padding, nothing is written
  int num_top = 0;                        // <= kMaxTopLogprobs
  DeviceSampleResult* results = nullptr;  // [R]; token = target, is_failed 0
  DeviceTokenLogprob* top = nullptr;  // [R, kMaxTopLogprobs], num_top of each row are written; null when num_top is 0
  void* workspace = nullptr;          // SampleWorkspaceBytes(R, V, 0), 256-byte aligned; needs no clearing
  bool is_dependent = false;
};

cudaError_t LaunchLogprobs(const LogprobsLaunch& launch, cudaStream_t stream);

}  // namespace millrace::cuda
