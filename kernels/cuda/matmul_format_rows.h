// SPDX-License-Identifier: Apache-2.0
#pragma once
// Row-major weights in the type of x for the skinny kernels: bfloat16, float16, and int8 with a scale per channel. A
// lane reads 16 bytes of rows g and g + 8 for either half of a stage; warps read 64 bytes of 8 rows. Device code.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/matmul_device.h"
#include "kernels/cuda/matmul_limits.h"
#include "kernels/cuda/matmul_skinny_stage.h"

namespace millrace::cuda {

template <typename TheMath>
struct RowFormat {
  using Math = TheMath;
  static constexpr int kXBytes = Math::kItemBytes;
  static constexpr bool kIsGrouped = false;
  static constexpr int kLaneUnits = 4;
  static constexpr int kManyChannelTiles = 1;

  struct Source {
    static constexpr int kStageStep = kStageBytes;
    const char* rows[2];  // of channels g and g + 8
    int num_bytes;        // from there to the end of a row

    __device__ static Source Of(const WeightOnDevice& w, int tile) {
      const int lane_byte = static_cast<int>(threadIdx.x) % 4 * 16;
      const char* const first = static_cast<const char*>(w.values) + lane_byte;
      const int64_t stride_bytes = w.stride * kXBytes;
      return {{ptx::Pin(first + LaneChannel(w, tile, 0) * stride_bytes),
               ptx::Pin(first + LaneChannel(w, tile, 1) * stride_bytes)},
              static_cast<int>(w.k) * kXBytes - lane_byte};
    }
    __device__ void Advance(int by_bytes) { rows[0] += by_bytes, rows[1] += by_bytes, num_bytes -= by_bytes; }
    __device__ const char* Unit(int unit) const { return rows[unit % 2] + unit / 2 * kHalfBytes; }
    __device__ bool IsValid(int stage, int unit) const {
      return stage * kStageBytes + unit / 2 * kHalfBytes < num_bytes;
    }
  };

  template <int kStride>
  __device__ static void Operands(const uint4* units, int half, uint32_t /*zeros*/, uint32_t (&a)[2][4]) {
    RowsToOperands(units[half * 2 * kStride], units[(half * 2 + 1) * kStride], a);
  }
};

}  // namespace millrace::cuda
