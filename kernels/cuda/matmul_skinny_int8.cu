// SPDX-License-Identifier: Apache-2.0
// The skinny matmul (matmul_skinny.h) for int8 weights with a scale per group (matmul_format_int8.h).
#include "kernels/cuda/matmul_format_int8.h"
#include "kernels/cuda/matmul_skinny.h"
#include "kernels/cuda/matmul_skinny_formats.h"

namespace millrace::cuda {

cudaError_t LaunchSkinnyGroupedInt8(const MatmulTask& task, cudaStream_t stream) {
  if (task.x_dtype == DType::kBF16) return LaunchSkinnyFormat<GroupedInt8Format<Bf16Math>>(task, stream);
  return LaunchSkinnyFormat<GroupedInt8Format<F16Math>>(task, stream);
}

}  // namespace millrace::cuda
