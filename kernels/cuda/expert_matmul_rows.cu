// SPDX-License-Identifier: Apache-2.0
// The skinny matmul over experts (expert_matmul_skinny.h) for row-major weights (matmul_format_rows.h): in the type
// of x, and int8 with a scale per channel.
#include "kernels/cuda/expert_matmul_skinny.h"
#include "kernels/cuda/matmul_format_rows.h"

namespace millrace::cuda {

cudaError_t LaunchSkinnyExpertMatmul(const ExpertMatmulTask& task, cudaStream_t stream) {
  if (task.all.w.format == WeightFormat::kInt4) return LaunchSkinnyExpertInt4(task, stream);
  if (task.all.w.group_size != 0) return LaunchSkinnyExpertGroupedInt8(task, stream);
  if (task.all.w.format == WeightFormat::kInt8) return LaunchSkinnyExpertFormat<RowFormat<S8Math>>(task, stream);
  if (task.all.x_dtype == DType::kBF16) return LaunchSkinnyExpertFormat<RowFormat<Bf16Math>>(task, stream);
  return LaunchSkinnyExpertFormat<RowFormat<F16Math>>(task, stream);
}

}  // namespace millrace::cuda
