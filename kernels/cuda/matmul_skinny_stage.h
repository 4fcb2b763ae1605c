// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a block of the skinny matmul (matmul_skinny.h) does with one stage: loads of x and weights into shared memory,
// scales of groups, the products. Internal to matmul_skinny*.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/matmul_device.h"
#include "kernels/cuda/matmul_kernels.h"

namespace millrace::cuda {

inline constexpr int kSkinnyThreads = 32 * kSkinnyWarps;
inline constexpr int kHalfBytes = 64;  // of a row of x: what two products take
inline constexpr int kStageBytes = kSkinnyStageBytes;
static_assert(kStageBytes == 2 * kHalfBytes);

template <typename Format, int kChannelTiles, int kTokenTiles>
struct SkinnyShape {
  static constexpr int kXBytes = Format::kXBytes;  // of an element of x
  static constexpr int kChannels = 16 * kSkinnyWarps * kChannelTiles;
  static constexpr int kTokens = 8 * kTokenTiles;
  static constexpr int kWeightUnits = kChannelTiles * Format::kLaneUnits * kSkinnyThreads;  // of 16 bytes
  static constexpr int kTokenUnits = kTokens * kStageBytes / 16;
  static constexpr int kStageUnits = kWeightUnits + kTokenUnits;
  // Two blocks of 96 KiB share a multiprocessor of sm_90; one fits where a block may have 99 KiB.
  static constexpr int kNumStages = std::min(8, 96 * 64 / kStageUnits);
  static constexpr int kSharedBytes = kNumStages * kStageUnits * 16;
  static constexpr int kNumSums = kChannelTiles * kTokenTiles;
  static_assert(kNumStages >= 3);
};

// Where a tile lies.
struct SkinnyPlace {
  int first_tile = 0;  // of 16 channels, of this warp
  int first_row = 0;
  int num_rows = 0;
};

template <typename Shape>
__device__ SkinnyPlace FindSkinnyPlace(const MatmulTask& task, int tile) {
  const int num_passes = (task.num_rows + task.rows_per_pass - 1) / task.rows_per_pass;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  SkinnyPlace place;
  place.first_tile = (tile / num_passes * kSkinnyWarps + warp) * (Shape::kChannels / (16 * kSkinnyWarps));
  place.first_row = tile % num_passes * task.rows_per_pass;
  place.num_rows = min(task.rows_per_pass, task.num_rows - place.first_row);
  return place;
}

// Rows past the end are zeros up to a multiple of 8; bytes past K are zeros, whatever lies there.
template <typename Shape>
__device__ void LoadSkinnyTokens(const MatmulTask& task, const SkinnyPlace& place, int stage, uint4* shared) {
  const int64_t row_bytes = task.w.k * Shape::kXBytes;
  const int num_tokens = (place.num_rows + 7) / 8 * 8;
  for (int unit = static_cast<int>(threadIdx.x); unit < Shape::kTokenUnits; unit += kSkinnyThreads) {
    const int half = unit / (Shape::kTokens * 4);
    const int token = unit / 4 % Shape::kTokens;
    if (token >= num_tokens) continue;
    const int64_t byte = static_cast<int64_t>(stage) * kStageBytes + half * kHalfBytes + unit % 4 * 16;
    const bool is_valid = token < place.num_rows && byte < row_bytes;
    const char* x = static_cast<const char*>(task.x);
    if (is_valid) x += (place.first_row + token) * task.x_stride_bytes + byte;
    ptx::CpAsync16(shared + unit, x, is_valid);
  }
}

template <typename Format, int kChannelTiles>
__device__ void LoadSkinnyWeights(const MatmulTask& task, int first_tile, int stage, uint4* shared) {
#pragma unroll
  for (int c = 0; c < kChannelTiles; ++c) {
#pragma unroll
    for (int unit = 0; unit < Format::kLaneUnits; ++unit) {
      const void* address = Format::Address(task.w, first_tile + c, stage, unit);
      uint4* slot = shared + (c * Format::kLaneUnits + unit) * kSkinnyThreads + threadIdx.x;
      ptx::CpAsync16(slot, address != nullptr ? address : task.w.values, address != nullptr);
    }
  }
}

// Scales and zero points of a stage's halves, for the lane's channels g and g + 8 of every tile.
template <int kChannelTiles>
struct SkinnyGroups {
  uint32_t scales[kChannelTiles][2];
  uint32_t zeros[kChannelTiles][2];

  __device__ void Load(const WeightOnDevice& w, int first_tile, int stage) {
    const int num_tiles = static_cast<int>((w.n + kTileChannels - 1) / kTileChannels);
    const int num_groups = static_cast<int>(w.k) / w.group_size;
    const int pair = static_cast<int>(threadIdx.x) % 32 / 4;
#pragma unroll
    for (int c = 0; c < kChannelTiles; ++c) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int group = min((stage * 2 + half) * 32 / w.group_size, num_groups - 1);
        const bool is_valid = first_tile + c < num_tiles;
        const int64_t index = (static_cast<int64_t>(first_tile + c) * num_groups + group) * 8 + pair;
        scales[c][half] = is_valid ? __ldg(static_cast<const uint32_t*>(w.scales) + index) : 0u;
        zeros[c][half] = 0x0808u;
        if (w.has_zeros && is_valid) zeros[c][half] = __ldg(static_cast<const uint16_t*>(w.zeros) + index);
      }
    }
  }
};

// Adds a finished group's sums, times its scales, to the totals.
template <int kTokenTiles>
__device__ void EndSkinnyGroup(uint32_t scales, float (*sums)[4], float (*totals)[4]) {
  const float2 scale = __half22float2(ToPair<__half2>(scales));
#pragma unroll
  for (int j = 0; j < kTokenTiles; ++j) {
    totals[j][0] = fmaf(scale.x, sums[j][0], totals[j][0]);
    totals[j][1] = fmaf(scale.x, sums[j][1], totals[j][1]);
    totals[j][2] = fmaf(scale.y, sums[j][2], totals[j][2]);
    totals[j][3] = fmaf(scale.y, sums[j][3], totals[j][3]);
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[j][i] = 0.0f;
  }
}

// The products of one half of a stage.
template <typename Format, int kChannelTiles, int kTokenTiles>
__device__ void MultiplySkinnyHalf(const uint4* weights, const uint4* tokens, int num_token_tiles,
                                   typename Format::Math::Sum (*sums)[4], const uint32_t (*zeros)[2], int half) {
  uint32_t a[kChannelTiles][2][4];
#pragma unroll
  for (int c = 0; c < kChannelTiles; ++c) {
    Format::Operands(weights + c * Format::kLaneUnits * kSkinnyThreads, half, zeros[c][half], a[c]);
  }
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int j = 0; j < kTokenTiles; ++j) {
    if (j >= num_token_tiles) break;
    const uint4 x = tokens[(half * kTokenTiles * 8 + j * 8) * 4 + lane];
    const uint32_t b[2][2] = {{x.x, x.y}, {x.z, x.w}};
#pragma unroll
    for (int c = 0; c < kChannelTiles; ++c) {
      Format::Math::Mma(sums[c * kTokenTiles + j], a[c][0], b[0]);
      Format::Math::Mma(sums[c * kTokenTiles + j], a[c][1], b[1]);
    }
  }
}

}  // namespace millrace::cuda
