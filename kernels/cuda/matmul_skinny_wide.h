// SPDX-License-Identifier: Apache-2.0
#pragma once
// The skinny matmul (matmul_skinny.h) for passes of 65 to 128 rows by grouped weights: 2 tiles of 16 channels by 16 of
// 8 rows a warp, 256 channels by 128 rows a block, one block a multiprocessor.
//
// Sums of a group beside totals of all groups would be 128 registers each. Here only totals stay: the products of half
// a stage, 32 inputs and so of one group, begin at zero, are scaled and added at once. What a weight costs, w bytes of
// it, of each shape that the registers would hold, by R rows:
//
//                      this, 2 x 16    1 x 16, sums and totals    two passes of 2 x 8, sums and totals
//   shared memory      w + R / 16      w + R / 8                  2 w + R / 16    bytes, 128 a clock
//   L2                 w + R / 128     w + R / 64                 2 w + R / 128   bytes, 32 a clock
//   unpacking          3.2             3.2                        6.4             operations, 128 a clock
//   scaling            R / 32          2 R / group                2 R / group     the same
//   products           R               R                          R               1024 a clock
//
// Shared memory would limit 1 x 16 as much as tensor cores do, and two passes read everything twice. In return sums are
// scaled up to four times as often as their groups end: 2 multiply-adds of a warp for each of its products, which leave
// tensor cores busy for 8 clocks.
//
// Internal to matmul_skinny*.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/matmul_schedule.h"
#include "kernels/cuda/matmul_skinny_stage.h"

namespace millrace::cuda {

// SkinnyGroups on their way: whoever widened the zero points as they come would wait for them.
template <int kChannelTiles>
struct WideGroups {
  uint32_t scales[kChannelTiles][2];
  uint16_t zeros[kChannelTiles][2];

  __device__ SkinnyGroups<kChannelTiles> Widened() const {
    SkinnyGroups<kChannelTiles> groups;
#pragma unroll
    for (int c = 0; c < kChannelTiles; ++c) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        groups.scales[c][half] = scales[c][half];
        groups.zeros[c][half] = zeros[c][half];
      }
    }
    return groups;
  }
};

// Where a lane finds the scales and zero points of the channels g and g + 8 of its tiles. They are fetched into
// registers a stage ahead: shared memory is full of weights and x, and a stage of so many rows takes longer than memory
// does.
template <int kChannelTiles>
struct WideGroupSource {
  const uint32_t* scales[kChannelTiles];
  const uint16_t* zeros[kChannelTiles];
  HalfGroups groups;
  bool has_zeros;

  __device__ WideGroupSource(const WeightOnDevice& w, int first_tile) : groups(w), has_zeros(w.has_zeros) {
    const int pair = static_cast<int>(threadIdx.x) % 32 / 4;
#pragma unroll
    for (int c = 0; c < kChannelTiles; ++c) {
      const int64_t index = ClampTile(w, first_tile + c) * groups.num_groups * 8 + pair;
      scales[c] = ptx::Pin(static_cast<const uint32_t*>(w.scales) + index);
      zeros[c] = ptx::Pin(static_cast<const uint16_t*>(w.zeros) + index);
    }
  }
  __device__ void Fetch(int stage, WideGroups<kChannelTiles>& fetched) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int index = groups.GroupOf(stage, half) * 8;
#pragma unroll
      for (int c = 0; c < kChannelTiles; ++c) {
        fetched.scales[c][half] = __ldg(scales[c] + index);
        fetched.zeros[c][half] = has_zeros ? __ldg(zeros[c] + index) : uint16_t{0x0808};
      }
    }
  }
};

// Adds the products of one half of a stage, which are of one group, times its scales to the totals. Two token tiles at
// a time, so that four (or more) products are on their way before the first is waited for.
template <typename Format, int kChannelTiles, int kTokenTiles>
__device__ void MultiplyScaledHalf(const uint4* weights, const uint4* tokens, int num_token_tiles,
                                   const SkinnyGroups<kChannelTiles>& groups, int half, float (*totals)[4]) {
  static_assert(kHalfBytes == kWideSumInputs * Format::kXBytes);
  uint32_t a[kChannelTiles][2][4];
#pragma unroll
  for (int c = 0; c < kChannelTiles; ++c) {
    Format::template Operands<kSkinnyThreads>(weights + c * Format::kLaneUnits * kSkinnyThreads, half,
                                              groups.zeros[c][half], a[c]);
  }
  const uint4* const lane_tokens = tokens + half * kTokenTiles * 32 + threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < kTokenTiles; j += 2) {
    if (j >= num_token_tiles) break;
    const bool has_second = j + 1 < num_token_tiles;
    const uint4 x = lane_tokens[j * 32];
    const uint4 y = has_second ? lane_tokens[(j + 1) * 32] : uint4{};
    const uint32_t b[2][2][2] = {{{x.x, x.y}, {y.x, y.y}}, {{x.z, x.w}, {y.z, y.w}}};
    float sums[2][kChannelTiles][4] = {};
#pragma unroll
    for (int product = 0; product < 2; ++product) {
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        if (t == 1 && !has_second) continue;
#pragma unroll
        for (int c = 0; c < kChannelTiles; ++c) Format::Math::Mma(sums[t][c], a[c][product], b[product][t]);
      }
    }
#pragma unroll
    for (int c = 0; c < kChannelTiles; ++c) {
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        EndSkinnyGroup<1>(groups.scales[c][half], &sums[t][c], totals + c * kTokenTiles + j + t);
      }
    }
  }
}

// As SumSkinny.
template <typename Ring, typename Format, int kChannelTiles, int kTokenTiles>
__device__ void SumWide(const Ring& ring, const Segment& segment, float (*totals)[4]) {
  const WideGroupSource<kChannelTiles> source(ring.task.w, ring.place.first_tile);
  WideGroups<kChannelTiles> next_groups;
  source.Fetch(segment.first_stage, next_groups);
  const int num_token_tiles = (ring.place.num_rows + 7) / 8;
  ForEachStage<1>(ring, segment.first_stage, [&](int stage, int slot) {
    const SkinnyGroups<kChannelTiles> groups = next_groups.Widened();
    source.Fetch(stage + 1, next_groups);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      MultiplyScaledHalf<Format, kChannelTiles, kTokenTiles>(ring.Weights(slot), ring.Tokens(slot), num_token_tiles,
                                                             groups, half, totals);
    }
  });
}

}  // namespace millrace::cuda
