// SPDX-License-Identifier: Apache-2.0
#pragma once
// Out of a warpgroup's products, whose rows are channels and whose columns are rows of x, 8 x 8 sums at a time are
// transposed among a warp's registers, so that pairs of channels are stored. Internal to matmul_warpgroup*.
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/common/ptx_barrier.h"
#include "kernels/cuda/matmul_device.h"
#include "kernels/cuda/matmul_kernels.h"
#include "kernels/cuda/matmul_schedule.h"

namespace millrace::cuda {

inline constexpr int kProductChannels = 64;
inline constexpr int kConsumerGroups = 2;  // of warps that multiply; the fetching group comes after them
inline constexpr int kGroupThreads = 128;
// Above each other.
constexpr int GroupProducts(int block_channels) { return block_channels / kConsumerGroups / kProductChannels; }

// An 8 x 8 matrix of 32-bit elements as LdMatrixX1 has one of 16 bits: the transposed one in the same places.
__device__ inline uint2 TransposePairs(uint32_t first, uint32_t second) {
  const uint32_t low = ptx::MovMatrixTrans(ptx::Prmt(first, second, 0x5410));
  const uint32_t high = ptx::MovMatrixTrans(ptx::Prmt(first, second, 0x7632));
  return {ptx::Prmt(low, high, 0x5410), ptx::Prmt(low, high, 0x7632)};
}
__device__ inline uint32_t BitsOf(float sum) { return __float_as_uint(sum); }
__device__ inline uint32_t BitsOf(int32_t sum) { return static_cast<uint32_t>(sum); }
template <typename Sum>
__device__ float SumOf(uint32_t bits) {
  if constexpr (std::is_same_v<Sum, float>) return __uint_as_float(bits);
  return static_cast<float>(static_cast<int32_t>(bits));
}

template <typename Sum, int kGroupProducts, int kRowTiles>
__device__ void StoreSums(const MatmulTask& task, const TilePlace& place,
                          const Sum (&sums)[kGroupProducts][kRowTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int num_channels = static_cast<int>(task.w.n);
#pragma unroll
  for (int i = 0; i < kGroupProducts; ++i) {
    const int first_channel =
        place.first_channel + (warp / 4 * kGroupProducts + i) * kProductChannels + warp % 4 * 16 + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < kRowTiles; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint2 pair = TransposePairs(BitsOf(sums[i][j][2 * half]), BitsOf(sums[i][j][2 * half + 1]));
        const int row = 8 * j + lane / 4;
        const int channel = first_channel + 8 * half;
        if (row >= place.num_rows || channel >= num_channels) continue;
        StoreOutputPair(task.epilogue, place.first_row + row, channel, num_channels,
                        {SumOf<Sum>(pair.x), SumOf<Sum>(pair.y)});
      }
    }
  }
}

}  // namespace millrace::cuda
