// SPDX-License-Identifier: Apache-2.0
#pragma once
// int8 weights with a scale per group for the skinny kernels. A lane's 16 bytes of a row are units t and t + 4 of 8
// inputs (matmul_pack.h), one for either half of a stage. Bytes hold q + 128; the conversion to 16 bits is exact:
// float16 as 1024 + byte - 1152, bfloat16 (7 bits of fraction) by way of float32. Device code.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/matmul_device.h"
#include "kernels/cuda/matmul_limits.h"
#include "kernels/cuda/matmul_skinny_stage.h"

namespace millrace::cuda {

// Bytes 0..3 as two registers of two values.
template <typename Math>
__device__ void BytesToPairs(uint32_t bytes, uint32_t& low, uint32_t& high);

template <>
__device__ inline void BytesToPairs<F16Math>(uint32_t bytes, uint32_t& low, uint32_t& high) {
  constexpr uint32_t kBasePlus128 = 0x64806480u;
  low = F16Math::Subtract(ptx::Prmt(bytes, F16Math::kBase, 0x5150), kBasePlus128);
  high = F16Math::Subtract(ptx::Prmt(bytes, F16Math::kBase, 0x5352), kBasePlus128);
}

template <>
__device__ inline void BytesToPairs<Bf16Math>(uint32_t bytes, uint32_t& low, uint32_t& high) {
  constexpr uint32_t kTwo23 = 0x4b000000u;  // 2^23: its last bits count ones
  constexpr float kOffset = 8388608.0f + 128.0f;
  float values[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) values[i] = __uint_as_float(ptx::Prmt(bytes, kTwo23, 0x7440u + i)) - kOffset;
  low = Bf16Math::Pack(values[0], values[1]);
  high = Bf16Math::Pack(values[2], values[3]);
}

template <typename TheMath>
struct GroupedInt8Format {
  using Math = TheMath;
  static constexpr int kXBytes = 2;
  static constexpr bool kIsGrouped = true;
  static constexpr int kLaneUnits = 2;
  static constexpr int kManyChannelTiles = 1;
  static_assert(kTileInputs * kXBytes == kStageBytes);

  struct Source {
    static constexpr int kStageStep = kTileInputs;
    const char* rows[2];  // of channels g and g + 8

    __device__ static Source Of(const WeightOnDevice& w, int tile) {
      const char* const first = static_cast<const char*>(w.values) + threadIdx.x % 4 * 16;
      return {
          {ptx::Pin(first + LaneChannel(w, tile, 0) * w.stride), ptx::Pin(first + LaneChannel(w, tile, 1) * w.stride)}};
    }
    __device__ void Advance(int num_bytes) { rows[0] += num_bytes, rows[1] += num_bytes; }
    __device__ const char* Unit(int unit) const { return rows[unit]; }
    __device__ static bool IsValid(int /*stage*/, int /*unit*/) { return true; }
  };

  template <int kStride>
  __device__ static void Operands(const uint4* units, int half, uint32_t /*zeros*/, uint32_t (&a)[2][4]) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const uint2 words = reinterpret_cast<const uint2*>(units + row * kStride)[half];
      BytesToPairs<Math>(words.x, a[0][row], a[0][row + 2]);
      BytesToPairs<Math>(words.y, a[1][row], a[1][row + 2]);
    }
  }
};

}  // namespace millrace::cuda
