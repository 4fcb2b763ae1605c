// SPDX-License-Identifier: Apache-2.0
#pragma once
// What those that fetch and those that multiply share in the warpgroup kernel of attention: shapes, stages, the order
// of items. Device code. Internal to attention_warpgroup*.
#include <type_traits>

#include "kernels/cuda/attention_prefill_item.h"
#include "kernels/cuda/common/ptx_wgmma.h"
#include "kernels/cuda/page_divisor.h"
#include "kernels/cuda/tensor_map.h"

namespace millrace::cuda {

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr int kGroupRows = 64;  // of a product
inline constexpr int kNumGroups = 2;   // of warps that multiply; the fetching group comes after them
inline constexpr int kGroupThreads = 128;
inline constexpr int kConsumerThreads = kGroupThreads * kNumGroups;
inline constexpr int kNumThreads = kConsumerThreads + kGroupThreads;
inline constexpr int kKeys = 128;                        // of a step
inline constexpr int kPanelWidth = kTensorBoxBytes;      // bytes of a row that lie together
inline constexpr int kPanelBytes = kKeys * kPanelWidth;  // of a stage
inline constexpr int kEightRows = 8 * kPanelWidth;

template <DType kKv, int kHeadDim>
struct AttentionTile {
  using Numbers = KvTile<kKv, kHeadDim>;
  static constexpr bool kIsByte = Numbers::kIsByte;
  static constexpr bool kHasScales = Numbers::kHasScales;
  static constexpr int kRows = kGroupRows * kNumGroups;
  static_assert(kRows == PrefillTileRows(kHeadDim), "the plan's tiles");
  static constexpr int kDim = kHeadDim;
  static constexpr int kStoredBytes = Numbers::kVectorBytes;  // of a vector in its page
  static constexpr int kVectorBytes = 2 * kHeadDim;           // in a stage
  static constexpr int kPieces = kVectorBytes / 16;
  static constexpr int kPanels = kVectorBytes / kPanelWidth;
  static constexpr int kNumStages = kHeadDim > 64 ? 2 : 4;
  static constexpr int kQueryBytes = kGroupRows * kVectorBytes;  // of a group
  static constexpr int kSlotBytes = kKeys * kVectorBytes;
  static constexpr int kKeysAt = kNumGroups * kQueryBytes;
  static constexpr int kValuesAt = kKeysAt + kNumStages * kSlotBytes;
  static constexpr int kScalesAt = kValuesAt + kNumStages * kSlotBytes;  // of keys, then of values: a float a token
  static constexpr int kNumScales = kHasScales ? kNumStages * kKeys : 0;
  static constexpr int kSharedBytes = kScalesAt + 2 * kNumScales * 4 + 1024;  // starts at a multiple of 1024
  static constexpr int kFetchingWarps = kIsByte ? 2 : 1;                      // of a pipeline
  // Those that widen bytes hold them in registers; scales take some of those that multiply.
  static constexpr int kByteRegisters = kHeadDim == 64 ? 104 : kHasScales ? 56 : 72;
  static constexpr int kProducerRegisters = kIsByte ? kByteRegisters : 40;
  static constexpr int kConsumerRegisters = 252 - kProducerRegisters / 2;
  static_assert(kConsumerRegisters * kNumGroups + kProducerRegisters == 168 * (kNumGroups + 1), "as launched");
  using Pages = std::conditional_t<kIsByte, PageDivisor, int32_t>;  // of 16-bit KV the tokens of a box
  using Scores = float[kKeys / 8][4];
  using Weights = uint32_t[kKeys / 16][4];
  using Output = float[kHeadDim / 8][4];

  __device__ static __forceinline__ void MultiplyKeys(Scores& s, uint64_t q, uint64_t k, bool adds) {
    if constexpr (kKv == DType::kBF16) {
      ptx::WgmmaBf16(s, q, k, adds);
    } else {
      ptx::WgmmaF16(s, q, k, adds);
    }
  }
  __device__ static __forceinline__ void MultiplyValues(Output& out, const uint32_t (&p)[4], uint64_t v) {
    if constexpr (kKv == DType::kBF16) {
      ptx::WgmmaBf16<ptx::MatrixOrder::kAcrossK>(out, p, v, true);
    } else {
      ptx::WgmmaF16<ptx::MatrixOrder::kAcrossK>(out, p, v, true);
    }
  }
};

// A pipeline's stages: full when all lanes of the fetching warps and their copies have arrived, empty when all warps
// that multiply are done with it.
template <typename Tile>
struct Stages {
  static constexpr int kNumStages = Tile::kNumStages;
  ptx::Mbarrier full[kNumStages];
  ptx::Mbarrier empty[kNumStages];

  __device__ void Init() {
    for (int i = 0; i < kNumStages; ++i) {
      ptx::MbarrierInit(&full[i], 32 * Tile::kFetchingWarps);
      ptx::MbarrierInit(&empty[i], kConsumerThreads / 32);
    }
  }
  __device__ __forceinline__ void WaitEmpty(int fill) {
    ptx::MbarrierWait(&empty[fill % kNumStages], fill / kNumStages % 2 ^ 1);
  }
  __device__ __forceinline__ void WaitFull(int fill) {
    ptx::MbarrierWait(&full[fill % kNumStages], fill / kNumStages % 2);
  }
  __device__ __forceinline__ void Release(int fill) {
    if (threadIdx.x % 32 == 0) ptx::MbarrierArrive(&empty[fill % kNumStages]);
  }
};

template <typename Tile>
struct Pipelines {
  Stages<Tile> keys, values;
};

// Items of the block, one after the other. Every other round goes backwards: who had the longest gets the shortest.
__device__ __forceinline__ int32_t ItemOfRound(int round) {
  const int num_blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
  return round * num_blocks + (round % 2 == 0 ? block : num_blocks - 1 - block);
}
template <typename Tile, typename Act>
__device__ __forceinline__ void ForEachItem(const AttentionLaunch& args, Act&& act) {
  const AttentionPlanView plan = ViewPlan(args.plan, args.num_sequences);
  const int32_t num_items = NumPrefillItems(args, plan);
  for (int round = 0; round * static_cast<int>(gridDim.x) < num_items; ++round) {
    const int32_t index = ItemOfRound(round);
    if (index < num_items) act(FindPrefillItem(args, plan, index, Tile::kRows));
  }
}

__device__ __forceinline__ int NumSteps(const PrefillItem& item) {
  return (item.end + kKeys - 1) / kKeys - item.begin / kKeys;
}

// Where a token's 16-byte piece lies in a stage.
__device__ __forceinline__ int PieceOffset(int rows, int row, int piece) {
  return piece / 8 * (rows * kPanelWidth) + row * kPanelWidth + (piece % 8 ^ row % 8) * 16;
}

}  // namespace millrace::cuda
