// SPDX-License-Identifier: Apache-2.0
// The skinny matmul (matmul_skinny.h) for int4 weights (matmul_format_int4.h).
#include "kernels/cuda/matmul_format_int4.h"
#include "kernels/cuda/matmul_skinny.h"
#include "kernels/cuda/matmul_skinny_formats.h"

namespace millrace::cuda {

cudaError_t LaunchSkinnyInt4(const MatmulTask& task, cudaStream_t stream) {
  if (task.x_dtype == DType::kBF16) return LaunchSkinnyFormat<Int4Format<Bf16Math>>(task, stream);
  return LaunchSkinnyFormat<Int4Format<F16Math>>(task, stream);
}

}  // namespace millrace::cuda
