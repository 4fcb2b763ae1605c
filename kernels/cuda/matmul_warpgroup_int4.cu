// SPDX-License-Identifier: Apache-2.0
// The int4 matmul of matmul_warpgroup_int4.h by wide blocks.
#include "kernels/cuda/matmul_warpgroup_int4.h"

namespace millrace::cuda {

cudaError_t LaunchWarpgroupInt4Matmul(const MatmulTask& task, cudaStream_t stream) {
  constexpr WarpgroupBlock kBlock = WideBlock(WeightFormat::kInt4);
  return LaunchWarpgroupRows<Int4Format<kBlock.num_channels>, kBlock.min_rows, kBlock.max_rows>(task, stream);
}

}  // namespace millrace::cuda
