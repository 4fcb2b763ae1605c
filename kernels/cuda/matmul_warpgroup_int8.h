// SPDX-License-Identifier: Apache-2.0
#pragma once
// The matmul of int8 by int8 for many rows on sm_90a (matmul_warpgroup.h): out[m, n] = s_x[m] * s_w[n] * sum over k of
// x[m, k] * w[n, k], the sum exact.
//
//   layout    rows of x and channels as matmul_pack.h has them, 128 bytes along k of either a stage, swizzled
//   products  m64nRk32, both operands straight from shared memory; those of a stage are waited for while the next one's
//             run
//   limit     tensor cores, and L2, which feeds every block its channels and rows, or its part of what a cluster shares
//
// Its twin, for other devices and in tests, is the tile kernel: the sums are the same integers. Internal to
// matmul_warpgroup_int8*.cu, which instantiate it for wide and for narrow blocks.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/matmul_warpgroup.h"

namespace millrace::cuda {

template <int kBlockChannels>
struct Int8Format {
  static constexpr int kChannels = kBlockChannels;
  using Sum = int32_t;
  static constexpr int kXBytes = 1;
  static constexpr int kWeightBytes = kChannels * kWarpgroupStageBytes;
  static constexpr int kProductBytes = 32;  // along k
  struct Maps {
    CUtensorMap channels;
  };
  struct Lane {
    __device__ explicit Lane(const MatmulTask& /*task*/) {}
  };

  static cudaError_t MakeMaps(const MatmulTask& task, Maps& maps) {
    return MakeTensorMap(
        {task.w.values, task.w.k, task.w.n, task.w.stride, static_cast<uint32_t>(kChannels / task.cluster.row_blocks)},
        maps.channels);
  }
  __device__ static uint32_t FetchedBytes(const MatmulTask& /*task*/) { return kWeightBytes; }
  __device__ static void Fetch(const MatmulTask& task, const Maps& maps, const WeightsAt& from, unsigned char* weights,
                               ptx::Mbarrier* full) {
    CopyForChannels(task, weights, maps.channels, {from.stage * kWarpgroupStageBytes, from.first_channel}, kChannels,
                    full);
  }

  template <int kGroupProducts, int kRowTiles, typename Release>
  __device__ static void Multiply(const MatmulTask& /*task*/, const Lane& /*lane*/, const Stage& /*stage*/, uint64_t x,
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

}  // namespace millrace::cuda
