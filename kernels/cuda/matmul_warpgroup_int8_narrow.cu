// SPDX-License-Identifier: Apache-2.0
// The int8 matmul of matmul_warpgroup_int8.h by narrow blocks.
#include "kernels/cuda/matmul_warpgroup_int8.h"

namespace millrace::cuda {

cudaError_t LaunchWarpgroupInt8Narrow(const MatmulTask& task, cudaStream_t stream) {
  constexpr WarpgroupBlock kBlock = NarrowBlock(WeightFormat::kInt8);
  return LaunchWarpgroupRows<Int8Format<kBlock.num_channels>, kBlock.min_rows, kBlock.max_rows>(task, stream);
}

}  // namespace millrace::cuda
