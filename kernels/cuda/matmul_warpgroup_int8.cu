// SPDX-License-Identifier: Apache-2.0
// The int8 matmul of matmul_warpgroup_int8.h by wide blocks, and which clusters a device has room for.
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/matmul_warpgroup_int8.h"

namespace millrace::cuda {
namespace {

constexpr WarpgroupBlock kBlock = WideBlock(WeightFormat::kInt8);
using Format = Int8Format<kBlock.num_channels>;

// Of the kernel that takes most shared memory, in a grid of more than any device runs at once.
int CountResidentClusters(unsigned cluster_blocks) {
  constexpr unsigned kManyClusters = 1024;
  int count = 0;
  const cudaError_t error = CountActiveClusters(WarpgroupMatmul<Format, kBlock.max_rows>,
                                                {.grid = dim3(kManyClusters * cluster_blocks),
                                                 .block = dim3(kWarpgroupThreads),
                                                 .shared_bytes = WarpgroupTile<Format, kBlock.max_rows>::kSharedBytes,
                                                 .cluster_blocks = cluster_blocks},
                                                count);
  if (error == cudaSuccess) return count;
  static_cast<void>(cudaGetLastError());  // which the next launch would be blamed for
  return 0;
}

}  // namespace

ResidentClusters FindResidentClusters() {
  return {.of_two = CountResidentClusters(2), .of_four = CountResidentClusters(4)};
}

cudaError_t LaunchWarpgroupMatmul(const MatmulTask& task, cudaStream_t stream) {
  const bool is_int4 = task.w.format == WeightFormat::kInt4;
  switch (task.block_channels) {
    case kWarpgroupChannels:
      return is_int4 ? LaunchWarpgroupInt4Matmul(task, stream) : LaunchWarpgroupInt8Matmul(task, stream);
    case kWarpgroupNarrowChannels:
      return is_int4 ? LaunchWarpgroupInt4Narrow(task, stream) : LaunchWarpgroupInt8Narrow(task, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t LaunchWarpgroupInt8Matmul(const MatmulTask& task, cudaStream_t stream) {
  return LaunchWarpgroupRows<Format, kBlock.min_rows, kBlock.max_rows>(task, stream);
}

}  // namespace millrace::cuda
