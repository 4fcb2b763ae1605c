// SPDX-License-Identifier: Apache-2.0
// The matmul of int8 by int8 for many rows on sm_90a (matmul_warpgroup.h): out[m, n] = s_x[m] * s_w[n] * sum over k of
// x[m, k] * w[n, k], the sum exact.
//
//   layout    rows of x and channels as matmul_pack.h has them, 128 bytes along k of either a stage, swizzled
//   products  m64nRk32, both operands straight from shared memory; those of a stage are waited for while the next one's
//             run
//   limit     tensor cores, and L2, which feeds every block 256 channels and R rows for 256 x R sums
//
// Its twin, for other devices and in tests, is the tile kernel: the sums are the same integers.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/matmul.h"
#include "kernels/cuda/matmul_warpgroup.h"

namespace millrace::cuda {
namespace {

struct Int8Format {
  using Sum = int32_t;
  static constexpr bool kHasClusters = true;
  static constexpr int kXBytes = 1;
  static constexpr int kWeightBytes = kWarpgroupChannels * kWarpgroupStageBytes;
  static constexpr int kProductBytes = 32;  // along k
  struct Maps {
    CUtensorMap channels;
  };
  struct Lane {};

  static cudaError_t MakeMaps(const MatmulTask& task, Maps& maps) {
    return MakeTensorMap({task.w.values, task.w.k, task.w.n, task.w.stride,
                          static_cast<uint32_t>(kWarpgroupChannels / task.cluster_blocks)},
                         maps.channels);
  }
  __device__ static uint32_t FetchedBytes(const MatmulTask& /*task*/) { return kWeightBytes; }
  __device__ static void Fetch(const MatmulTask& task, const Maps& maps, const WeightsAt& from, unsigned char* weights,
                               ptx::Mbarrier* full) {
    using Blocks = Cluster<true>;
    const int channel = Blocks::Rank(task) * (kWarpgroupChannels / Blocks::Size(task));
    CopyToCluster(task, weights + channel * kWarpgroupStageBytes, maps.channels,
                  {from.stage * kWarpgroupStageBytes, from.first_channel + channel}, full);
  }

  template <int kRowTiles, typename Release>
  __device__ static void Multiply(const MatmulTask& /*task*/, const Lane& /*lane*/, uint64_t x,
                                  const unsigned char* weights, int32_t (&sums)[kGroupProducts][kRowTiles][4],
                                  const Release& release) {
    const int group = static_cast<int>(threadIdx.x) / kGroupThreads;
    const uint64_t w = ptx::MatrixDescriptor(weights + group * kGroupProducts * kProductChannels * kWarpgroupStageBytes,
                                             ptx::Swizzle::k128, 16, kEightRowsBytes);
    ptx::WgmmaFence();
#pragma unroll
    for (int i = 0; i < kGroupProducts; ++i) {
#pragma unroll
      for (int at = 0; at < kWarpgroupStageBytes; at += kProductBytes) {
        ptx::WgmmaS8(sums[i], ptx::Advance(w, i * kProductChannels * kWarpgroupStageBytes + at), ptx::Advance(x, at),
                     true);
      }
    }
    ptx::WgmmaCommit();
    ptx::WgmmaWait<1>();
    release();
  }
};

// Of the kernel that takes most shared memory, in a grid of more than any device runs at once.
int CountResidentClusters(unsigned cluster_blocks) {
  constexpr int kRows = WarpgroupRows(WeightFormat::kInt8);
  constexpr unsigned kManyClusters = 1024;
  int count = 0;
  const cudaError_t error = CountActiveClusters(WarpgroupMatmul<Int8Format, kRows>,
                                                {.grid = dim3(kManyClusters * cluster_blocks),
                                                 .block = dim3(kWarpgroupThreads),
                                                 .shared_bytes = WarpgroupTile<Int8Format, kRows>::kSharedBytes,
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
  return task.w.format == WeightFormat::kInt4 ? LaunchWarpgroupInt4Matmul(task, stream)
                                              : LaunchWarpgroupInt8Matmul(task, stream);
}

cudaError_t LaunchWarpgroupInt8Matmul(const MatmulTask& task, cudaStream_t stream) {
  return LaunchWarpgroupRows<Int8Format>(
      task, stream, std::integer_sequence<int, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192>());
}

}  // namespace millrace::cuda
