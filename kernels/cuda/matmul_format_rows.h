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

  __device__ static const void* Address(const WeightOnDevice& w, int tile, int stage, int unit) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int64_t channel = static_cast<int64_t>(tile) * kTileChannels + lane / 4 + unit % 2 * 8;
    const int64_t byte = static_cast<int64_t>(stage) * kStageBytes + unit / 2 * kHalfBytes + lane % 4 * 16;
    if (channel >= w.n || byte >= w.k * kXBytes) return nullptr;
    return static_cast<const char*>(w.values) + channel * w.stride * kXBytes + byte;
  }

  __device__ static void Operands(const uint4* units, int half, uint32_t /*zeros*/, uint32_t (&a)[2][4]) {
    RowsToOperands(units[half * 2 * kSkinnyThreads], units[(half * 2 + 1) * kSkinnyThreads], a);
  }
};

}  // namespace millrace::cuda
