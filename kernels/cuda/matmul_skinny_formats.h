// SPDX-License-Identifier: Apache-2.0
#pragma once
// The skinny matmul's launchers by format, one source file each; LaunchSkinnyMatmul is with the row-major ones.
// Internal to matmul_skinny*.
#include <cuda_runtime.h>

#include "kernels/cuda/matmul_kernels.h"

namespace millrace::cuda {

cudaError_t LaunchSkinnyInt4(const MatmulTask& task, cudaStream_t stream);
cudaError_t LaunchSkinnyGroupedInt8(const MatmulTask& task, cudaStream_t stream);

}  // namespace millrace::cuda
