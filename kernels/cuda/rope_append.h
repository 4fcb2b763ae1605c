// SPDX-License-Identifier: Apache-2.0
#pragma once
// QK norm (optional), RoPE, and the append of K and V into pages, on the fused projection. The launcher allocates
// nothing and does not wait.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/kv_layer.h"
#include "kernels/tensor.h"

namespace millrace::cuda {

struct RopeAppendLaunch {
  Matrix qkv;  // [T, (H + 2G) * D] BF16 or F16: q heads, then k heads, then v heads; q is rewritten in place
  int num_heads = 0;
  const float* q_norm = nullptr;  // [D] or null
  const float* k_norm = nullptr;  // [D] or null
  float norm_eps = 1e-6f;
  RopeTable rope;                      // pointers on the device
  const int32_t* positions = nullptr;  // [T]
  const int64_t* slots = nullptr;      // [T]: page * page_tokens + offset; negative: nothing is stored
  KvLayer kv;                          // BF16, F16, I8 (scale absmax / 127 per token and head) or F8E4M3 (scale 1)
  bool is_dependent = false;           // programmatic dependent launch on the stream's previous kernel
};

// K and V in qkv keep their bits. REQUIRES: slots are distinct where not negative; head_dim is at most 512.
// cudaErrorInvalidValue: a dtype no kernel takes, or a head dimension above 512.
cudaError_t LaunchRopeAppend(const RopeAppendLaunch& launch, cudaStream_t stream);

}  // namespace millrace::cuda
