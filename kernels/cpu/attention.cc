// SPDX-License-Identifier: Apache-2.0
// softmax(q k^T * scale) v over pages, by online softmax (arXiv 1805.02867) over tiles of tokens that start at
// multiples of kTileTokens of the absolute position: a row's additions never depend on how the step was cut.
// The fast path packs all query heads of a KV head, and several rows, into a tile that shares each load of K and V;
// see attention_kernels.h. Decode is bound by memory, prefill by arithmetic.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/check.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/kv_slot.h"
#include "kernels/cpu/op_context.h"
#include "kernels/ops.h"

namespace millrace::cpu {
namespace {

constexpr int64_t kTileTokens = 32;
constexpr int64_t kMaxHeadDim = 512;

// One query head of one row over the tokens [first, last) it sees.
struct HeadState {
  float largest = -std::numeric_limits<float>::infinity();
  float sum = 0;
  float out[kMaxHeadDim] = {};
};

void AddTile(const AttentionArgs& args, const AttentionSequence& sequence, const float* q, int64_t kv_head,
             int64_t begin, int64_t end, HeadState& state) {
  const KvLayer& kv = args.kv;
  const int64_t dim = kv.head_dim;
  float scores[kTileTokens];
  float vector[kMaxHeadDim];
  float tile_largest = state.largest;
  const auto index_of = [&](int64_t token) {
    return KvVectorIndex(kv, sequence.pages[token / kv.page_tokens], kv_head, token % kv.page_tokens);
  };
  for (int64_t token = begin; token < end; ++token) {
    LoadKvVector(kv, kv.keys, kv.key_scales, index_of(token), vector);
    float dot = 0;
    for (int64_t i = 0; i < dim; ++i) dot += q[i] * vector[i];
    scores[token - begin] = dot * args.scale;
    tile_largest = std::max(tile_largest, scores[token - begin]);
  }
  const float shrink = std::exp(state.largest - tile_largest);
  state.largest = tile_largest;
  state.sum *= shrink;
  for (int64_t i = 0; i < dim; ++i) state.out[i] *= shrink;
  for (int64_t token = begin; token < end; ++token) {
    const float weight = std::exp(scores[token - begin] - tile_largest);
    state.sum += weight;
    LoadKvVector(kv, kv.values, kv.value_scales, index_of(token), vector);
    for (int64_t i = 0; i < dim; ++i) state.out[i] += weight * vector[i];
  }
}

void AttendRow(const AttentionArgs& args, const AttentionSequence& sequence, int64_t row, int64_t head) {
  const int64_t dim = args.kv.head_dim;
  const int64_t seen = sequence.context_tokens + row + 1;
  const int64_t first = args.window_tokens > 0 ? std::max<int64_t>(0, seen - args.window_tokens) : 0;
  const float* q = static_cast<const float*>(args.q.data) + (sequence.first_row + row) * args.q.stride + head * dim;
  float* out = static_cast<float*>(args.out.data) + (sequence.first_row + row) * args.out.stride + head * dim;
  const int64_t kv_head = head / (args.num_heads / args.kv.num_kv_heads);
  HeadState state;
  for (int64_t tile = first / kTileTokens * kTileTokens; tile < seen; tile += kTileTokens) {
    AddTile(args, sequence, q, kv_head, std::max(tile, first), std::min(tile + kTileTokens, seen), state);
  }
  for (int64_t i = 0; i < dim; ++i) out[i] = state.out[i] / state.sum;
}

void AttendPlainly(const AttentionArgs& args, const OpContext& context) {
  for (const AttentionSequence& sequence : args.sequences) {
    context.pool.ParallelForChunks(static_cast<int64_t>(sequence.num_rows) * args.num_heads, 4,
                                   [&](int64_t begin, int64_t end, int /*worker*/) {
                                     for (int64_t i = begin; i < end; ++i)
                                       AttendRow(args, sequence, i / args.num_heads, i % args.num_heads);
                                   });
  }
}

// One split of one tile, computed on its own so that few long sequences keep many threads busy.
struct SplitItem {
  int64_t tile = 0;
  int64_t split = 0;
  int64_t partial = 0;  // where its state goes, in floats
};

// The engine thread's lists, grown to the largest step once.
struct Plan {
  std::vector<AttentionTile> tiles;
  std::vector<SplitItem> splits;
  std::vector<float> partials;
};

AttentionTile MakeTile(const AttentionArgs& args, const AttentionSequence& sequence, int64_t row, int64_t head) {
  const KvLayer& kv = args.kv;
  const int64_t kv_head = head / (args.num_heads / kv.num_kv_heads);
  const int64_t vectors = kv_head * kv.page_tokens;  // before the head, in each page
  const int64_t bytes = vectors * kv.head_dim * static_cast<int64_t>(DTypeBytes(kv.dtype));
  const bool has_scales = kv.dtype == DType::kI8;
  return {.q = static_cast<const float*>(args.q.data) + (sequence.first_row + row) * args.q.stride + head * kv.head_dim,
          .q_stride = args.q.stride,
          .out = static_cast<float*>(args.out.data) + (sequence.first_row + row) * args.out.stride + head * kv.head_dim,
          .out_stride = args.out.stride,
          .head_dim = kv.head_dim,
          .scale = args.scale,
          .seen_tokens = sequence.context_tokens + row + 1,
          .window_tokens = args.window_tokens,
          .keys = static_cast<const uint8_t*>(kv.keys) + bytes,
          .values = static_cast<const uint8_t*>(kv.values) + bytes,
          .key_scales = has_scales ? kv.key_scales + vectors : nullptr,
          .value_scales = has_scales ? kv.value_scales + vectors : nullptr,
          .dtype = kv.dtype,
          .pages = sequence.pages,
          .page_tokens = kv.page_tokens,
          .page_stride = static_cast<int64_t>(kv.num_kv_heads) * kv.page_tokens};
}

// Late rows first: they see the most tokens, and a long item taken last would leave the other threads waiting.
void MakeTiles(const AttentionArgs& args, std::vector<AttentionTile>& tiles) {
  const int group = args.num_heads / args.kv.num_kv_heads;
  const int tile_heads = std::min(group, kMaxTileQueries);
  const int tile_rows = kMaxTileQueries / tile_heads;
  tiles.clear();
  for (const AttentionSequence& sequence : args.sequences) {
    for (int row = (sequence.num_rows - 1) / tile_rows * tile_rows; row >= 0; row -= tile_rows) {
      for (int head = 0; head < args.num_heads;) {
        AttentionTile tile = MakeTile(args, sequence, row, head);
        tile.num_rows = std::min(tile_rows, sequence.num_rows - row);
        tile.num_heads = std::min(tile_heads, group - head % group);
        head += tile.num_heads;
        tiles.push_back(tile);
      }
    }
  }
}

// The splits a tile sees: [first, last].
int64_t FirstSplit(const AttentionTile& tile) {
  if (tile.window_tokens <= 0) return 0;
  return std::max<int64_t>(0, tile.seen_tokens - tile.window_tokens) / kKvSplitTokens;
}
int64_t LastSplit(const AttentionTile& tile) { return (tile.seen_tokens + tile.num_rows - 2) / kKvSplitTokens; }

int64_t StateFloats(const AttentionTile& tile) {
  return static_cast<int64_t>(tile.num_rows) * tile.num_heads * ((tile.head_dim + 15) / 16 * 16 + 1 + kSumLanes);
}

// Between a state and its compact copy [largest][sums][out].
void CopyState(const AttentionTile& tile, const AttentionState& state, float* to) {
  const int64_t num_queries = static_cast<int64_t>(tile.num_rows) * tile.num_heads;
  to = std::copy_n(state.largest, num_queries, to);
  to = std::copy_n(state.sums, num_queries * kSumLanes, to);
  std::copy_n(state.out, StateFloats(tile) - num_queries * (1 + kSumLanes), to);
}
void CopyState(const AttentionTile& tile, const float* from, AttentionState& state) {
  const int64_t num_queries = static_cast<int64_t>(tile.num_rows) * tile.num_heads;
  std::copy_n(from, num_queries, state.largest);
  from += num_queries;
  std::copy_n(from, num_queries * kSumLanes, state.sums);
  from += num_queries * kSumLanes;
  std::copy_n(from, StateFloats(tile) - num_queries * (1 + kSumLanes), state.out);
}

AttentionScratch& WorkerScratch() {
  thread_local const std::unique_ptr<AttentionScratch> scratch = std::make_unique<AttentionScratch>();
  return *scratch;
}

// The same splits, merged in the same order as a tile does alone, but each computed by whoever is free.
void AttendInSplits(Plan& plan, const AttentionKernels& kernels, const OpContext& context) {
  plan.splits.clear();
  int64_t num_floats = 0;
  for (size_t t = 0; t < plan.tiles.size(); ++t) {
    for (int64_t split = FirstSplit(plan.tiles[t]); split <= LastSplit(plan.tiles[t]); ++split) {
      plan.splits.push_back({.tile = static_cast<int64_t>(t), .split = split, .partial = num_floats});
      num_floats += StateFloats(plan.tiles[t]);
    }
  }
  if (plan.partials.size() < static_cast<size_t>(num_floats)) plan.partials.resize(static_cast<size_t>(num_floats));
  const int64_t num_items = static_cast<int64_t>(plan.splits.size());
  context.pool.ParallelForChunks(num_items, 1, [&](int64_t begin, int64_t end, int /*worker*/) {
    AttentionScratch& scratch = WorkerScratch();
    for (int64_t i = begin; i < end; ++i) {
      const SplitItem& item = plan.splits[static_cast<size_t>(i)];
      const AttentionTile& tile = plan.tiles[static_cast<size_t>(item.tile)];
      kernels.attend_split(tile, item.split, scratch);
      CopyState(tile, scratch.split, plan.partials.data() + item.partial);
    }
  });
  AttentionScratch& scratch = WorkerScratch();
  for (size_t i = 0; i < plan.splits.size(); ++i) {
    const SplitItem& item = plan.splits[i];
    const AttentionTile& tile = plan.tiles[static_cast<size_t>(item.tile)];
    if (item.split == FirstSplit(tile)) kernels.start_total(tile, scratch);
    CopyState(tile, plan.partials.data() + item.partial, scratch.split);
    kernels.merge(tile, scratch);
    if (item.split == LastSplit(tile)) kernels.finish(tile, scratch);
  }
}

void AttendFast(const AttentionArgs& args, const AttentionKernels& kernels, const OpContext& context) {
  thread_local Plan plan;
  Plan& tiles_and_splits = plan;  // captured by the workers; `plan` would name their own
  MakeTiles(args, tiles_and_splits.tiles);
  const int64_t num_tiles = static_cast<int64_t>(tiles_and_splits.tiles.size());
  if (context.pool.num_threads() > 1 && num_tiles < 2 * context.pool.num_threads()) {
    AttendInSplits(tiles_and_splits, kernels, context);
    return;
  }
  context.pool.ParallelForChunks(num_tiles, 1, [&](int64_t begin, int64_t end, int /*worker*/) {
    for (int64_t i = begin; i < end; ++i) {
      kernels.attend(tiles_and_splits.tiles[static_cast<size_t>(i)], WorkerScratch());
    }
  });
}

}  // namespace

void Attention(const AttentionArgs& args, const OpContext& context) {
  MILLRACE_CHECK(args.kv.head_dim <= kMaxHeadDim, "the head dimension exceeds what attention was built for");
  MILLRACE_CHECK(args.num_heads % args.kv.num_kv_heads == 0, "query heads do not share KV heads evenly");
  if (context.path == CpuPath::kReference || args.kv.head_dim > kMaxFastHeadDim) return AttendPlainly(args, context);
  AttendFast(args, context.path == CpuPath::kAvx512 ? AttentionKernelsAvx512() : AttentionKernelsAvx2(), context);
}

}  // namespace millrace::cpu
