// SPDX-License-Identifier: Apache-2.0
#pragma once
// The matmul for up to 64 rows a pass, 128 by grouped weights (matmul_skinny_wide.h): memory-bound, so every weight
// byte is read once a pass, in 16-byte loads many stages ahead, and goes from shared memory straight into the registers
// of a tensor-core product.
//
//   block  8 warps; warp w holds kChannelTiles tiles of 16 output channels (the m16 side), all rows are the n8 side
//   stage  128 bytes along k of every row of x, and the weights for them; a thread copies and reads its own weights
//   x      [2 halves][rows][64 bytes]: eight lanes read two whole rows of a half, so no bank is asked twice
//   k      lane 4g + t takes bytes [16t, 16t + 16) of a half for both operands: the products see k permuted alike
//   tiles  passes of rows, then channels, shared by the blocks as matmul_schedule.h says
//
// Grouped weights are the exact small integers q - zero in 16 bits; a group's sums are scaled in float32 when it ends.
// The weights do not depend on the previous kernel: they are fetched before the grid dependency is waited for.
// sm_80 and up; the limit is memory bandwidth (int4 above 32 rows: tensor cores).
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/matmul_device.h"
#include "kernels/cuda/matmul_kernels.h"
#include "kernels/cuda/matmul_schedule.h"
#include "kernels/cuda/matmul_skinny_stage.h"
#include "kernels/cuda/matmul_skinny_wide.h"

namespace millrace::cuda {

template <typename Shape, int kTokenTiles, typename Sum>
__device__ void StoreSkinny(const MatmulTask& task, const SkinnyPlace& place, const Sum (&sums)[Shape::kNumSums][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < Shape::kNumSums; ++i) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int row = i % kTokenTiles * 8 + lane % 4 * 2 + r % 2;
      const int64_t channel = (place.first_tile + i / kTokenTiles) * 16 + lane / 4 + r / 2 * 8;
      if (row >= place.num_rows || channel >= task.w.n) continue;
      StoreOutput(task.epilogue, place.first_row + row, channel, static_cast<float>(sums[i][r]) * task.w.scale_unit);
    }
  }
}

// The sums of a segment: filled and read as a ring of stages.
template <typename Format, int kChannelTiles, int kTokenTiles>
struct SkinnyRing {
  using Shape = SkinnyShape<Format, kChannelTiles, kTokenTiles>;
  static constexpr int kNumStages = Shape::kNumStages;
  uint4* shared;
  const MatmulTask& task;
  SkinnyPlace place;
  int end_stage;
  typename Format::Source weights[kChannelTiles];
  SkinnyGroupSource<kChannelTiles> groups;
  SkinnyTokens<Shape> tokens;

  __device__ SkinnyRing(const MatmulTask& the_task, const SkinnyPlace& the_place, int the_end_stage)
      : shared(ptx::SharedMemory<uint4>()),
        task(the_task),
        place(the_place),
        end_stage(the_end_stage),
        groups(task.w, place.first_tile),
        tokens(the_task, the_place) {
#pragma unroll
    for (int c = 0; c < kChannelTiles; ++c) weights[c] = Format::Source::Of(task.w, place.first_tile + c);
  }
  __device__ void LoadWeights(int stage, int slot) const {
    if (stage >= end_stage) return;
    LoadSkinnyWeights<Format, kChannelTiles>(weights, stage, shared + slot * Shape::kStageUnits);
    if constexpr (Shape::kGroupUnits > 0) groups.Load(stage, Groups(slot));
  }
  __device__ void LoadTokens(int stage, int slot) const {
    if (stage < end_stage) tokens.Load(stage, shared + slot * Shape::kStageUnits + Shape::kWeightUnits);
    ptx::CpAsyncCommit();
  }
  // Of this warp's tiles.
  __device__ unsigned char* Groups(int slot) const {
    uint4* const all = shared + slot * Shape::kStageUnits + Shape::kWeightUnits + Shape::kTokenUnits;
    return reinterpret_cast<unsigned char*>(all) + threadIdx.x / 32 * kChannelTiles * kStageGroupBytes;
  }
  __device__ const uint4* Weights(int slot) const { return shared + slot * Shape::kStageUnits + threadIdx.x; }
  __device__ const uint4* Tokens(int slot) const { return shared + slot * Shape::kStageUnits + Shape::kWeightUnits; }
};

// Adds a segment's products to `sums`, or for grouped weights to `totals`.
template <typename Ring, typename Format, int kChannelTiles, int kTokenTiles>
__device__ void SumSkinny(const Ring& ring, const Segment& segment, typename Format::Math::Sum (*sums)[4],
                          float (*totals)[4]) {
  constexpr int kNumSums = kChannelTiles * kTokenTiles;
  constexpr int kStagesAtOnce = kNumSums <= 2 ? Ring::kNumStages : kNumSums <= 4 ? 2 : 1;
  SkinnyGroups<kChannelTiles> groups = {};
  const bool has_zeros = ring.task.w.has_zeros;
  const int num_token_tiles = (ring.place.num_rows + 7) / 8;
  ForEachStage<kStagesAtOnce>(ring, segment.first_stage, [&](int stage, int slot) {
    if constexpr (Format::kIsGrouped) groups.Read(ring.Groups(slot), has_zeros);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      MultiplySkinnyHalf<Format, kChannelTiles, kTokenTiles>(ring.Weights(slot), ring.Tokens(slot), num_token_tiles,
                                                             sums, groups.zeros, half);
      if constexpr (Format::kIsGrouped) {
        if (!ring.groups.groups.IsLastHalf(stage, half) && stage + 1 != ring.end_stage) continue;
#pragma unroll
        for (int c = 0; c < kChannelTiles; ++c) {
          EndSkinnyGroup<kTokenTiles>(groups.scales[c][half], sums + c * kTokenTiles, totals + c * kTokenTiles);
        }
      }
    }
  });
}

template <typename Format, int kChannelTiles, int kTokenTiles>
__global__ void __launch_bounds__(kSkinnyThreads, kChannelTiles* kTokenTiles <= 8 ? 2 : 1)
    SkinnyMatmul(const MatmulTask task) {
  using Ring = SkinnyRing<Format, kChannelTiles, kTokenTiles>;
  using Shape = typename Ring::Shape;
  __shared__ Segment segment;
  for (int i = 0; FindSegment(task, i, segment); ++i) {
    const Ring ring(task, FindSkinnyPlace<Shape>(task, segment.tile), segment.end_stage);
    for (int s = 0; s < Ring::kNumStages - 1; ++s) ring.LoadWeights(segment.first_stage + s, s);
    if (i == 0) ptx::GridDependencyWait();
    for (int s = 0; s < Ring::kNumStages - 1; ++s) ring.LoadTokens(segment.first_stage + s, s);
    if (i == 0) ptx::GridDependencyLaunch();
    typename Format::Math::Sum sums[Shape::kIsWide ? 1 : Shape::kNumSums][4] = {};
    float totals[Format::kIsGrouped ? Shape::kNumSums : 1][4] = {};
    if constexpr (Shape::kIsWide) {
      SumWide<Ring, Format, kChannelTiles, kTokenTiles>(ring, segment, totals);
    } else {
      SumSkinny<Ring, Format, kChannelTiles, kTokenTiles>(ring, segment, sums, totals);
    }
    const auto is_used = [&](int sum) { return sum % kTokenTiles * 8 < ring.place.num_rows; };
    if constexpr (Format::kIsGrouped) {
      if (GatherSegments(task, segment, is_used, totals)) StoreSkinny<Shape, kTokenTiles>(task, ring.place, totals);
    } else {
      if (GatherSegments(task, segment, is_used, sums)) StoreSkinny<Shape, kTokenTiles>(task, ring.place, sums);
    }
  }
}

template <typename Format, int kChannelTiles, int kTokenTiles>
cudaError_t LaunchSkinny(MatmulTask task, cudaStream_t stream) {
  using Shape = SkinnyShape<Format, kChannelTiles, kTokenTiles>;
  CutIntoTiles(Shape::kChannels, task.rows_per_pass, task);
  task.num_stages = static_cast<int>((task.w.k * Format::kXBytes + kStageBytes - 1) / kStageBytes);
  return Launch(SkinnyMatmul<Format, kChannelTiles, kTokenTiles>,
                {.grid = dim3(static_cast<unsigned>(task.num_blocks)),
                 .block = dim3(kSkinnyThreads),
                 .shared_bytes = Shape::kSharedBytes,
                 .stream = stream,
                 .is_dependent = task.is_dependent},
                task);
}

// Rows of a pass decide how many products share an operand of weights. A Format says:
//   kXBytes, kIsGrouped, Math; kLaneUnits: 16-byte loads of a lane per stage and tile of 16 channels
//   kManyChannelTiles: tiles of a warp when there are more than 32 rows
//   Source::Of(w, tile): what this lane reads; Unit(i) of the first stage, kStageStep bytes on of the next, and zeros
//   where it is not IsValid(stage, i)
//   Operands<kStride>(units, half, zeros, a): unit i at units[i * kStride]; zeros: of channels g and g + 8, a byte each
template <typename Format>
cudaError_t LaunchSkinnyFormat(const MatmulTask& task, cudaStream_t stream) {
  if (task.rows_per_pass <= 8) return LaunchSkinny<Format, 1, 1>(task, stream);
  if (task.rows_per_pass <= 16) return LaunchSkinny<Format, 1, 2>(task, stream);
  if (task.rows_per_pass <= 32) return LaunchSkinny<Format, 1, 4>(task, stream);
  if (task.rows_per_pass <= kSkinnyRows) return LaunchSkinny<Format, Format::kManyChannelTiles, 8>(task, stream);
  if constexpr (Format::kIsGrouped) {
    if (task.rows_per_pass <= kWideSkinnyRows) {
      return LaunchSkinny<Format, kWideChannelTiles, kWideSkinnyRows / 8>(task, stream);
    }
  }
  return cudaErrorInvalidValue;
}

}  // namespace millrace::cuda
