// SPDX-License-Identifier: Apache-2.0
#pragma once
// Sizes of a tile of the matmul by warpgroups (matmul_warpgroup.h), and what it asks of a weight format. Internal to
// matmul_warpgroup*.
#include "kernels/cuda/matmul_limits.h"
#include "kernels/cuda/matmul_warpgroup_cluster.h"
#include "kernels/cuda/matmul_warpgroup_store.h"
#include "kernels/cuda/tensor_map.h"

namespace millrace::cuda {

inline constexpr int kWarpgroupThreads = kGroupThreads * (kConsumerGroups + 1);
inline constexpr int kEightRowsBytes = 8 * kWarpgroupStageBytes;
inline constexpr int kProducerRegisters = 40;
inline constexpr int kConsumerRegisters = 232;
static_assert(kWarpgroupStageBytes == kTensorBoxBytes, "a stage is a box wide");

// A Format says:
//   kChannels     of a block
//   Sum           of a product
//   kXBytes       of an element of x
//   kWeightBytes  room for the weights of a stage: a multiple of 1024
//   Maps          of the weights; MakeMaps(task, maps) on the host
//   FetchedBytes(task), Fetch(task, maps, from, weights, full): of a stage; the block's part, where blocks share
//   Lane          what a thread knows all along a segment
//   Multiply(task, lane, stage, x, weights, sums, release): the products of a stage, the last group of which may still
//                 run when it returns; calls release() once the stage before is done with
template <typename Format, int kRows>
struct WarpgroupTile {
  static constexpr int kRowTiles = kRows / 8;
  static constexpr int kRowBytes = kRows * kWarpgroupStageBytes;
  static constexpr int kSlotBytes = kRowBytes + Format::kWeightBytes;
  static constexpr uint32_t kNumStages = 224 * 1024 / kSlotBytes >= 8 ? 8 : 4;
  static constexpr uint32_t kSharedBytes = kNumStages * kSlotBytes + 1024;  // the stages start at a multiple of 1024
  static constexpr int kGroupProducts = GroupProducts(Format::kChannels);
  using Barriers = StageBarriers<kNumStages>;
  using Sums = typename Format::Sum[kGroupProducts][kRowTiles][4];
  static_assert(kSlotBytes % 1024 == 0 && kNumStages * kSlotBytes <= 224 * 1024);
};

}  // namespace millrace::cuda
