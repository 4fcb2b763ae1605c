// SPDX-License-Identifier: Apache-2.0
#pragma once
// Scales and zero points of groups in the skinny matmul (matmul_skinny.h): into shared memory with a stage, from there
// to the lanes that want them, and onto a group's sums. Internal to matmul_skinny*.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/matmul_device.h"
#include "kernels/cuda/matmul_kernels.h"

namespace millrace::cuda {

// Scales and zero points of a warp's tile in a stage: [half][pair of channels g, g + 8], 4 and 2 bytes each.
inline constexpr int kGroupScaleBytes = 8 * 4;  // of a tile's group
inline constexpr int kGroupZeroBytes = 8 * 2;
inline constexpr int kStageGroupBytes = 2 * (kGroupScaleBytes + kGroupZeroBytes);

// Tiles past the end are read as the last ones: nobody stores their sums.
__device__ inline int64_t ClampTile(const WeightOnDevice& w, int tile) {
  return min(static_cast<int64_t>(tile), (w.n - 1) / kTileChannels);
}

// The groups of a weight, told from halves of a stage: 32 inputs, of which a group has 1, 2 or 4.
struct HalfGroups {
  int shift;  // from the number of a half to its group's
  int num_groups;

  __device__ explicit HalfGroups(const WeightOnDevice& w)
      : shift(w.group_size / 64), num_groups(static_cast<int>(w.k) / 32 >> shift) {}
  // Past the end the last one.
  __device__ int GroupOf(int stage, int half) const { return min((stage * 2 + half) >> shift, num_groups - 1); }
  __device__ bool IsLastHalf(int stage, int half) const {
    const int last = (1 << shift) - 1;
    return (stage * 2 + half & last) == last;
  }
};

// What this lane copies of scales and zero points, 4 bytes a stage and tile: a pair's scales, or two pairs' zero
// points.
template <int kChannelTiles>
struct SkinnyGroupSource {
  const char* from[kChannelTiles];
  HalfGroups groups;
  int step;  // from a group to the next
  int half;  // of a stage
  bool is_active;

  __device__ SkinnyGroupSource(const WeightOnDevice& w, int first_tile) : groups(w) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const bool is_scale = lane < 16;
    is_active = is_scale || (w.has_zeros && lane < 24);
    half = is_scale ? lane / 8 : lane / 4 % 2;
    step = is_scale ? kGroupScaleBytes : kGroupZeroBytes;
    const char* const first = static_cast<const char*>(is_scale ? w.scales : w.zeros) + lane * 4 % step;
#pragma unroll
    for (int c = 0; c < kChannelTiles; ++c)
      from[c] = ptx::Pin(first + ClampTile(w, first_tile + c) * groups.num_groups * step);
  }
  // `shared`: for the warp's first tile.
  __device__ void Load(int stage, unsigned char* shared) const {
    if (!is_active) return;
    const int group = groups.GroupOf(stage, half);
#pragma unroll
    for (int c = 0; c < kChannelTiles; ++c) {
      ptx::CpAsync4(shared + c * kStageGroupBytes + threadIdx.x % 32 * 4, from[c] + group * step, true);
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

}  // namespace millrace::cuda
