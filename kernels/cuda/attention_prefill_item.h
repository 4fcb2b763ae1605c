// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a block of prefill attention computes at a time, for both of its kernels. Device code but for the last function.
#include "kernels/cuda/attention_fragments.h"
#include "kernels/cuda/attention_plan.h"

namespace millrace::cuda {

// A tile of one sequence's queries for one KV head. Packed query p is row p / group and head first_head + p % group.
struct PrefillItem {
  DeviceSequence sequence;
  const int32_t* pages;
  int kv_head, first_head, group;
  int32_t first_query, num_queries;  // of the tile; of the sequence
  int32_t begin, end;                // the tokens that any query of the tile sees
};

__device__ __forceinline__ int32_t LastSeen(const PrefillItem& item, int32_t query) {
  return item.sequence.context_tokens + min(query, item.num_queries - 1) / item.group;
}

__device__ __forceinline__ int32_t NumPrefillItems(const AttentionLaunch& args, const AttentionPlanView& plan) {
  return plan.first_tile[args.num_sequences] * args.kv.num_kv_heads;
}

// By a whole warp. Late tiles come first: they see the most keys, and a long one taken last would run alone.
__device__ __forceinline__ PrefillItem FindPrefillItem(const AttentionLaunch& args, const AttentionPlanView& plan,
                                                       int32_t index, int tile_rows) {
  const int32_t tile = plan.first_tile[args.num_sequences] - 1 - index / args.kv.num_kv_heads;
  PrefillItem item;
  const int s = FindPart(plan.first_tile, args.num_sequences, tile);
  item.sequence = args.sequences[s];
  item.pages = args.pages + item.sequence.first_page;
  item.group = args.num_heads / args.kv.num_kv_heads;
  item.kv_head = index % args.kv.num_kv_heads;
  item.first_head = item.kv_head * item.group;
  item.first_query = (tile - plan.first_tile[s]) * tile_rows;
  item.num_queries = item.sequence.num_rows * item.group;
  item.begin = FirstSeenToken(LastSeen(item, item.first_query) + 1, args.window_tokens);
  item.end = LastSeen(item, item.first_query + tile_rows - 1) + 1;
  return item;
}

// Whatever the sequences are: each may leave one tile unfilled, and has two rows at least.
inline int64_t MostPrefillItems(const AttentionLaunch& launch, int tile_rows) {
  const int64_t group = launch.num_heads / launch.kv.num_kv_heads;
  const int64_t unfilled = launch.num_sequences < launch.q.rows / 2 ? launch.num_sequences : launch.q.rows / 2;
  return (launch.q.rows * group / tile_rows + unfilled) * launch.kv.num_kv_heads;
}

}  // namespace millrace::cuda
