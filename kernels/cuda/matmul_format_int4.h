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

  struct Source {
    static constexpr int kStageStep = 32 * 16;  // bytes
    const char* unit;

    __device__ static Source Of(const WeightOnDevice& w, int tile) {
      const int64_t num_stages = (w.k + kTileInputs - 1) / kTileInputs;
      const int64_t first = ClampTile(w, tile) * num_stages * kStageStep + threadIdx.x % 32 * 16;
      return {ptx::Pin(static_cast<const char*>(w.values) + first)};
    }
    __device__ void Advance(int num_bytes) { unit += num_bytes; }
    __device__ const char* Unit(int /*unit*/) const { return unit; }
    __device__ static bool IsValid(int /*stage*/, int /*unit*/) { return true; }
  };

  template <int kStride>
  __device__ static void Operands(const uint4* units, int half, uint32_t zeros, uint32_t (&a)[2][4]) {
    const uint2 words = reinterpret_cast<const uint2*>(units)[half];
    const uint32_t low = ptx::Prmt(zeros, Math::kBase, 0x5050);  // base + zero of channel g, and of g + 8
    const uint32_t high = ptx::Prmt(zeros, Math::kBase, 0x5151);
#pragma unroll
    for (int p = 0; p < 4; ++p) {
      const uint32_t zero = p % 2 == 0 ? low : high;
      a[0][p] = Math::Subtract(ptx::Lop3<kAndOr>(words.x >> (4 * p), 0x000f000fu, Math::kBase), zero);
      a[1][p] = Math::Subtract(ptx::Lop3<kAndOr>(words.y >> (4 * p), 0x000f000fu, Math::kBase), zero);
    }
  }
};

}  // namespace millrace::cuda
