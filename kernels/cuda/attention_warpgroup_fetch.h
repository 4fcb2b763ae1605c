// SPDX-License-Identifier: Apache-2.0
#pragma once
// The fetching side of the warpgroup kernel of attention for 16-bit KV: a warp for keys, a warp for values. Device
// code. Internal to attention_warpgroup*.
#include "kernels/cuda/attention_warpgroup_tile.h"

namespace millrace::cuda {

// What a warp fetches: keys or values.
struct Source {
  const CUtensorMap* map;  // boxes of a page
  const uint8_t* memory;
  int32_t box_tokens;  // of a page; 0: pages are not brought by boxes
  bool is_multiplied_by_weights;
};

// Copies those of a step's tokens that lie outside [box_begin, box_end); unseen ones become zeros.
template <typename Tile>
__device__ void FetchRows(const AttentionLaunch& args, const PrefillItem& item, const Source& source, int32_t first_key,
                          int2 boxes, unsigned char* slot) {
  const int lane = static_cast<int>(threadIdx.x) % 32, piece = lane % Tile::kPieces;
#pragma unroll 1
  for (int row = lane / Tile::kPieces; row < kKeys; row += 32 / Tile::kPieces) {
    const int32_t token = first_key + row;
    if (token >= boxes.x && token < boxes.y) continue;
    const bool is_seen = token >= item.begin && token < item.end;
    const int64_t vector = is_seen ? FindVector(args.kv, item.pages, item.kv_head, token) : 0;
    ptx::CpAsync16(slot + PieceOffset(kKeys, row, piece), source.memory + vector * Tile::kVectorBytes + 16 * piece,
                   is_seen);
  }
  ptx::CpAsyncCommit();
  ptx::CpAsyncWait<0>();
  ptx::FenceAsyncProxy();
}

// The tokens that come in boxes: of pages that are seen, or, where unseen ones must not be there, of those seen whole.
__device__ __forceinline__ int2 BoxedTokens(const PrefillItem& item, const Source& source) {
  const int32_t box = source.box_tokens;
  if (box == 0) return {0, 0};
  if (!source.is_multiplied_by_weights) return {item.begin / box * box, (item.end + box - 1) / box * box};
  return {(item.begin + box - 1) / box * box, item.end / box * box};
}

template <typename Tile>
__device__ void FetchItem(const AttentionLaunch& args, const PrefillItem& item, const Source& source,
                          Stages<Tile>& stages, unsigned char* slots, int& fill) {
  constexpr int kFewestBoxTokens = 8;
  static_assert(kKeys / kFewestBoxTokens * Tile::kPanels <= 32, "a lane has one box of a step at most");
  const int lane = static_cast<int>(threadIdx.x) % 32, panel = lane % Tile::kPanels;
  const int32_t box_at = lane / Tile::kPanels * source.box_tokens;
  const int2 boxes = BoxedTokens(item, source);
#pragma unroll 1
  for (int32_t key = item.begin / kKeys * kKeys; key < item.end; key += kKeys, ++fill) {
    const int32_t token = key + box_at;
    const bool has_box = box_at < kKeys && token >= boxes.x && token < boxes.y;
    const int32_t vector = has_box ? FindVector(args.kv, item.pages, item.kv_head, token) : 0;
    unsigned char* slot = slots + fill % Tile::kNumStages * Tile::kSlotBytes;
    ptx::Mbarrier* full = &stages.full[fill % Tile::kNumStages];
    stages.WaitEmpty(fill);
    if (has_box) {
      ptx::TensorCopy(slot + panel * kPanelBytes + box_at * kPanelWidth, source.map, panel * kPanelWidth, vector, full);
    }
    const bool has_rows =
        source.box_tokens == 0 || (source.is_multiplied_by_weights && (key < boxes.x || key + kKeys > boxes.y));
    if (has_rows) FetchRows<Tile>(args, item, source, key, boxes, slot);
    ptx::MbarrierArriveExpect(full, has_box ? source.box_tokens * kPanelWidth : 0);
  }
}

template <typename Tile>
__device__ void Fetch(const AttentionLaunch& args, const Source& source, Stages<Tile>& stages, unsigned char* slots) {
  int fill = 0;
  ForEachItem<Tile>(args, [&](const PrefillItem& item) { FetchItem<Tile>(args, item, source, stages, slots, fill); });
}

}  // namespace millrace::cuda
