// SPDX-License-Identifier: Apache-2.0
#pragma once
// int4 weights for the skinny kernels: one 16-byte load is a lane's operands of four products. Nibbles p and p + 4 of a
// word are one register, so a shift and one lop3 make it base + q in 16 bits twice, and one exact subtraction q - zero.
// Four of either and three shifts per word and product. Device code.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/matmul_device.h"
#include "kernels/cuda/matmul_limits.h"
#include "kernels/cuda/matmul_skinny_stage.h"

namespace millrace::cuda {

template <typename TheMath>
struct Int4Format {
  using Math = TheMath;
  static constexpr int kXBytes = 2;
  static constexpr bool kIsGrouped = true;
  static constexpr int kLaneUnits = 1;
  static constexpr int kManyChannelTiles = kManyInt4ChannelTiles;
  static_assert(kTileInputs * kXBytes == kStageBytes);

  __device__ static const void* Address(const WeightOnDevice& w, int tile, int stage, int /*unit*/) {
    const int64_t num_stages = (w.k + kTileInputs - 1) / kTileInputs;
    if (static_cast<int64_t>(tile) * kTileChannels >= w.n) return nullptr;
    return static_cast<const uint4*>(w.values) + (tile * num_stages + stage) * 32 + threadIdx.x % 32;
  }

  __device__ static void Operands(const uint4* units, int half, uint32_t zeros, uint32_t (&a)[2][4]) {
    const uint2 words = reinterpret_cast<const uint2*>(units)[half];
    const uint32_t low = Math::kBase | (zeros & 0xffu) * 0x10001u;  // base + zero of channel g, and of g + 8
    const uint32_t high = Math::kBase | (zeros >> 8) * 0x10001u;
#pragma unroll
    for (int p = 0; p < 4; ++p) {
      const uint32_t zero = p % 2 == 0 ? low : high;
      a[0][p] = Math::Subtract(ptx::Lop3<kAndOr>(words.x >> (4 * p), 0x000f000fu, Math::kBase), zero);
      a[1][p] = Math::Subtract(ptx::Lop3<kAndOr>(words.y >> (4 * p), 0x000f000fu, Math::kBase), zero);
    }
  }
};

}  // namespace millrace::cuda
