// SPDX-License-Identifier: Apache-2.0
#pragma once
// The next token of each row, as kernels/cpu/sample.cc draws it: the same noise and the same inverse CDF in order of
// id, so tokens agree with the CPU's but for the rounding of sums. A result is a function of its row's logits,
// parameters, seed and position, never of the batch. Launched on a stream; allocates nothing, waits for nothing.
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/sample_types.h"
#include "kernels/tensor.h"

namespace millrace::cuda {

// Which kernels a step needs. What a row asks for and its step does not have is passed over.
struct SampleFeatures {
  bool has_filters = false;   // a row with temperature > 0 has top-k, top-p or min-p
  bool has_logprobs = false;  // a row has num_top_logprobs >= 0
};

struct SampleLaunch {
  Matrix logits;  // [R, V] F32, V <= kMaxSampledVocab; overwritten where a row has bias, penalties or bans
  const DeviceSampleRow* rows = nullptr;  // [num_rows]
  int num_rows = 0;
  SampleFeatures features;
  const int32_t* tokens = nullptr;        // the rows' lists
  const float* biases = nullptr;          // of the biased tokens
  const uint32_t* masks = nullptr;        // [masks, ceil(V/32)] bit set: allowed
  DeviceSampleResult* results = nullptr;  // [num_rows]
  DeviceTokenLogprob* top = nullptr;      // [num_rows, kMaxTopLogprobs], best first; entries not wanted are left alone
  void* workspace = nullptr;              // SampleWorkspaceBytes, 256-byte aligned; needs no clearing
  bool is_dependent = false;
};

// `num_tokens`: all of a step's lists together.
size_t SampleWorkspaceBytes(int64_t max_rows, int64_t vocab, int64_t num_tokens);

cudaError_t LaunchSample(const SampleLaunch& launch, cudaStream_t stream);

}  // namespace millrace::cuda
