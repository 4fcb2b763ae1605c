// SPDX-License-Identifier: Apache-2.0
// The skinny matmul over experts (expert_matmul_skinny.h) for int8 weights with a scale per group
// (matmul_format_int8.h).
#include "kernels/cuda/expert_matmul_skinny.h"
#include "kernels/cuda/matmul_format_int8.h"

namespace millrace::cuda {

cudaError_t LaunchSkinnyExpertGroupedInt8(const ExpertMatmulTask& task, cudaStream_t stream) {
  if (task.all.x_dtype == DType::kBF16) return LaunchSkinnyExpertFormat<GroupedInt8Format<Bf16Math>>(task, stream);
  return LaunchSkinnyExpertFormat<GroupedInt8Format<F16Math>>(task, stream);
}

}  // namespace millrace::cuda
