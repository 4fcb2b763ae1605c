// SPDX-License-Identifier: Apache-2.0
// The skinny matmul over experts (expert_matmul_skinny.h) for int4 weights (matmul_format_int4.h).
#include "kernels/cuda/expert_matmul_skinny.h"
#include "kernels/cuda/matmul_format_int4.h"

namespace millrace::cuda {

cudaError_t LaunchSkinnyExpertInt4(const ExpertMatmulTask& task, cudaStream_t stream) {
  if (task.all.x_dtype == DType::kBF16) return LaunchSkinnyExpertFormat<Int4Format<Bf16Math>>(task, stream);
  return LaunchSkinnyExpertFormat<Int4Format<F16Math>>(task, stream);
}

}  // namespace millrace::cuda
