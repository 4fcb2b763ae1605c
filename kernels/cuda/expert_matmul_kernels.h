// SPDX-License-Identifier: Apache-2.0
#pragma once
// What LaunchExpertMatmul hands to a kernel, and the kernels' launchers. Internal to expert_matmul*.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/expert_matmul.h"
#include "kernels/cuda/matmul_kernels.h"

namespace millrace::cuda {

struct ExpertMatmulTask {
  MatmulTask all;  // the sorted rows; of w, and of the channels' scales, only what the experts have in common
  const ExpertParts* experts = nullptr;  // [E]
  const int32_t* starts = nullptr;       // [E + 1]
  int num_experts = 0;                   // E
  int max_passes = 0;                    // of all experts together, whatever the routing
};

// `task` with the matrix of one expert.
__device__ inline void SetExpert(const ExpertParts& parts, MatmulTask& task) {
  task.w.values = parts.values;
  task.w.scales = parts.scales;
  task.w.zeros = parts.zeros;
  task.w.has_zeros = parts.zeros != nullptr;
  task.w.scale_unit = parts.scale_unit;
  if (task.epilogue.row_scales != nullptr) task.epilogue.channel_scales = static_cast<const float*>(parts.scales);
}

// The expert among whose [firsts[e], firsts[e + 1]) `index` lies.
__device__ inline int FindExpert(const int32_t* firsts, int num_experts, int index) {
  int low = 0, high = num_experts;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (firsts[middle] <= index) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// One thread an output, any shape: the twin the others are tested against, and the fallback.
cudaError_t LaunchPlainExpertMatmul(const ExpertMatmulTask& task, cudaStream_t stream);

// Passes of up to 64 rows of an expert (expert_matmul_skinny.h). REQUIRES: as LaunchSkinnyMatmul.
cudaError_t LaunchSkinnyExpertMatmul(const ExpertMatmulTask& task, cudaStream_t stream);
cudaError_t LaunchSkinnyExpertInt4(const ExpertMatmulTask& task, cudaStream_t stream);
cudaError_t LaunchSkinnyExpertGroupedInt8(const ExpertMatmulTask& task, cudaStream_t stream);

}  // namespace millrace::cuda
