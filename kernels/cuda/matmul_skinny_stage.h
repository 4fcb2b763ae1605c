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

// Scales and zero points of a warp's tile in a stage: [half][pair of channels g, g + 8], 4 and 2 bytes each.
inline constexpr int kGroupScaleBytes = 8 * 4;  // of a tile's group
inline constexpr int kGroupZeroBytes = 8 * 2;
inline constexpr int kStageGroupBytes = 2 * (kGroupScaleBytes + kGroupZeroBytes);

template <typename Format, int kChannelTiles, int kTokenTiles>
struct SkinnyShape {
  static constexpr int kXBytes = Format::kXBytes;  // of an element of x
  static constexpr int kChannels = 16 * kSkinnyWarps * kChannelTiles;
  static constexpr int kTokens = 8 * kTokenTiles;
  static constexpr int kWeightUnits = kChannelTiles * Format::kLaneUnits * kSkinnyThreads;  // of 16 bytes
  static constexpr int kTokenUnits = kTokens * kStageBytes / 16;
  static constexpr bool kIsWide = kTokens > kSkinnyRows;  // matmul_skinny_wide.h
  static constexpr int kGroupUnits =
      Format::kIsGrouped && !kIsWide ? kSkinnyWarps * kChannelTiles * kStageGroupBytes / 16 : 0;
  static constexpr int kStageUnits = kWeightUnits + kTokenUnits + kGroupUnits;
  // Two blocks of 96 KiB share a multiprocessor of sm_90; one fits where a block may have 99 KiB, but two of 48 KiB.
  static constexpr int kStagesIn48KiB = 48 * 64 / kStageUnits;
  static constexpr int kNumStages = std::min(8, kStagesIn48KiB >= 6 ? kStagesIn48KiB : 96 * 64 / kStageUnits);
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

// Tiles and channels past the end are read as the last ones: nobody stores their sums.
__device__ inline int64_t ClampTile(const WeightOnDevice& w, int tile) {
  return min(static_cast<int64_t>(tile), (w.n - 1) / kTileChannels);
}
// Channel g, or with `row` g + 8, of a tile.
__device__ inline int64_t LaneChannel(const WeightOnDevice& w, int tile, int row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  return min(static_cast<int64_t>(tile) * kTileChannels + lane / 4 + row * 8, w.n - 1);
}

// What this thread copies of x: 16 bytes of a row, or of several 64 rows apart, in one or both halves of every stage.
// Rows past the end are zeros up to a multiple of 8; bytes past K are zeros, whatever lies there.
template <typename Shape>
struct SkinnyTokens {
  static constexpr int kUnits = (Shape::kTokenUnits + kSkinnyThreads - 1) / kSkinnyThreads;
  const char* row;
  int64_t stride_bytes;
  int token;
  int num_rows;
  int first_byte;  // along k, in a stage
  int num_bytes;   // of the row, from where a stage's piece begins

  __device__ SkinnyTokens(const MatmulTask& task, const SkinnyPlace& place) {
    const int thread = static_cast<int>(threadIdx.x);
    token = thread / 4 % Shape::kTokens;
    num_rows = place.num_rows;
    first_byte = thread / (Shape::kTokens * 4) * kHalfBytes + thread % 4 * 16;
    stride_bytes = task.x_stride_bytes;
    row = ptx::Pin(static_cast<const char*>(task.x) + (place.first_row + token) * stride_bytes + first_byte);
    num_bytes = static_cast<int>(task.w.k) * Shape::kXBytes - first_byte;
  }
  __device__ void Load(int stage, uint4* shared) const {
    if (Shape::kTokenUnits < kSkinnyThreads && threadIdx.x >= Shape::kTokenUnits) return;
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      constexpr int kRowsAtOnce = kSkinnyThreads / 4;
      const int later_rows = i * kRowsAtOnce % Shape::kTokens;
      if (token + later_rows >= (num_rows + 7) / 8 * 8) continue;
      const int byte = stage * kStageBytes + i * kRowsAtOnce / Shape::kTokens * kHalfBytes;
      const bool is_valid = token + later_rows < num_rows && byte < num_bytes;
      ptx::CpAsync16(shared + i * kSkinnyThreads + threadIdx.x, row + later_rows * stride_bytes + byte, is_valid);
    }
  }
};

template <typename Format, int kChannelTiles>
__device__ void LoadSkinnyWeights(const typename Format::Source (&sources)[kChannelTiles], int stage, uint4* shared) {
#pragma unroll
  for (int c = 0; c < kChannelTiles; ++c) {
#pragma unroll
    for (int unit = 0; unit < Format::kLaneUnits; ++unit) {
      ptx::CpAsync16(shared + (c * Format::kLaneUnits + unit) * kSkinnyThreads + threadIdx.x,
                     sources[c].Unit(unit) + stage * Format::Source::kStageStep, sources[c].IsValid(stage, unit));
    }
  }
}

// What this lane copies of scales and zero points, 4 bytes a stage and tile: a pair's scales, or two pairs' zero
// points.
template <int kChannelTiles>
struct SkinnyGroupSource {
  const char* from[kChannelTiles];
  int step;   // from a group to the next
  int half;   // of a stage
  int shift;  // from the number of a half to its group's
  int last_group;
  bool is_active;

  __device__ SkinnyGroupSource(const WeightOnDevice& w, int first_tile) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const bool is_scale = lane < 16;
    shift = w.group_size / 64;  // of 32, 64 and 128
    const int num_groups = static_cast<int>(w.k) / 32 >> shift;
    last_group = num_groups - 1;
    is_active = is_scale || (w.has_zeros && lane < 24);
    half = is_scale ? lane / 8 : lane / 4 % 2;
    step = is_scale ? kGroupScaleBytes : kGroupZeroBytes;
    const char* const first = static_cast<const char*>(is_scale ? w.scales : w.zeros) + lane * 4 % step;
#pragma unroll
    for (int c = 0; c < kChannelTiles; ++c)
      from[c] = ptx::Pin(first + ClampTile(w, first_tile + c) * num_groups * step);
  }
  // `groups`: of the warp's first tile.
  __device__ void Load(int stage, unsigned char* groups) const {
    if (!is_active) return;
    const int group = min((stage * 2 + half) >> shift, last_group);
#pragma unroll
    for (int c = 0; c < kChannelTiles; ++c) {
      ptx::CpAsync4(groups + c * kStageGroupBytes + threadIdx.x % 32 * 4, from[c] + group * step, true);
    }
  }
};

// Those of the lane's channels, for a stage's halves.
template <int kChannelTiles>
struct SkinnyGroups {
  uint32_t scales[kChannelTiles][2];
  uint32_t zeros[kChannelTiles][2];

  __device__ void Read(const unsigned char* groups, bool has_zeros) {
    const int pair = static_cast<int>(threadIdx.x) % 32 / 4;
#pragma unroll
    for (int c = 0; c < kChannelTiles; ++c) {
      const unsigned char* const tile = groups + c * kStageGroupBytes;
      const auto* const tile_scales = reinterpret_cast<const uint32_t*>(tile) + pair;
      const auto* const tile_zeros = reinterpret_cast<const uint16_t*>(tile + 2 * kGroupScaleBytes) + pair;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        scales[c][i] = tile_scales[i * kGroupScaleBytes / 4];
        zeros[c][i] = has_zeros ? tile_zeros[i * kGroupZeroBytes / 2] : 0x0808u;
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
    Format::template Operands<kSkinnyThreads>(weights + c * Format::kLaneUnits * kSkinnyThreads, half, zeros[c][half],
                                              a[c]);
  }
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int j = 0; j < kTokenTiles; ++j) {
    if (j > 0 && j >= num_token_tiles) break;
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
