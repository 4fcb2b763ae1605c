// SPDX-License-Identifier: Apache-2.0
// The int4 matmul of matmul_warpgroup_int4.h by narrow blocks.
#include "kernels/cuda/matmul_warpgroup_int4.h"

namespace millrace::cuda {

cudaError_t LaunchWarpgroupInt4Narrow(const MatmulTask& task, cudaStream_t stream) {
  constexpr WarpgroupBlock kBlock = NarrowBlock(WeightFormat::kInt4);
  return LaunchWarpgroupRows<Int4Format<kBlock.num_channels>, kBlock.min_rows, kBlock.max_rows>(task, stream);
}

}  // namespace millrace::cuda
