// SPDX-License-Identifier: Apache-2.0
// The skinny matmul (matmul_skinny.h) for row-major weights in the type of x (matmul_format_rows.h).
#include "kernels/cuda/matmul_format_rows.h"
#include "kernels/cuda/matmul_skinny.h"
#include "kernels/cuda/matmul_skinny_formats.h"

namespace millrace::cuda {

cudaError_t LaunchSkinnyMatmul(const MatmulTask& task, cudaStream_t stream) {
  if (task.w.format == WeightFormat::kInt4) return LaunchSkinnyInt4(task, stream);
  if (task.w.group_size != 0) return LaunchSkinnyGroupedInt8(task, stream);
  if (task.w.format == WeightFormat::kInt8) return LaunchSkinnyFormat<RowFormat<S8Math>>(task, stream);
  if (task.x_dtype == DType::kBF16) return LaunchSkinnyFormat<RowFormat<Bf16Math>>(task, stream);
  return LaunchSkinnyFormat<RowFormat<F16Math>>(task, stream);
}

}  // namespace millrace::cuda
