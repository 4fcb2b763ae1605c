// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a block of the skinny matmul (matmul_skinny.h) does with one stage: loads of x and weights into shared memory,
// the products. Internal to matmul_skinny*.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/matmul_device.h"
#include "kernels/cuda/matmul_kernels.h"
#include "kernels/cuda/matmul_skinny_groups.h"

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
  const int warp = static_cast<int>(threadIdx.x) / 32;
  SkinnyPlace place;
  place.first_tile = (tile / task.num_row_tiles * kSkinnyWarps + warp) * (Shape::kChannels / (16 * kSkinnyWarps));
  place.first_row = tile % task.num_row_tiles * task.rows_per_pass;
  place.num_rows = min(task.rows_per_pass, task.num_rows - place.first_row);
  return place;
}

// Channel g, or with `row` g + 8, of a tile; past the end the last one.
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

// add(stage, slot) for every stage of a segment as it lies in a slot of the ring, which is refilled behind it.
// kStagesAtOnce: how many the compiler unrolls; where it is a whole ring, slots are known.
template <int kStagesAtOnce, typename Ring, typename Add>
__device__ __forceinline__ void ForEachStage(const Ring& ring, int first_stage, const Add& add) {
  constexpr int kNumStages = Ring::kNumStages;
#pragma unroll 1
  for (int first = first_stage; first < ring.end_stage; first += kNumStages) {
#pragma unroll kStagesAtOnce
    for (int slot = 0; slot < kNumStages; ++slot) {
      const int stage = first + slot;
      if (stage >= ring.end_stage) break;
      ptx::CpAsyncWait<kNumStages - 2>();
      __syncthreads();  // everyone's rows of x have arrived, and everyone is done with the slot refilled now
      const int free_slot = (slot + kNumStages - 1) % kNumStages;
      ring.LoadWeights(stage + kNumStages - 1, free_slot);
      ring.LoadTokens(stage + kNumStages - 1, free_slot);
      add(stage, slot);
    }
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
