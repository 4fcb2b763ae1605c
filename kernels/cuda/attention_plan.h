// SPDX-License-Identifier: Apache-2.0
#pragma once
// How a step's attention is cut into work, shared by the planner, the kernels and their tests. Every cut is a function
// of one sequence's own lengths: never of the other sequences, the machine or the grid.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/attention.h"

namespace millrace::cuda {

// Decode cuts what a row sees into chunks, each attended by one block on its own and merged in order.
inline constexpr int kMaxChunks = 64;
inline constexpr int32_t kSmallChunkTokens = 128;  // short sequences: more blocks at once, merging costs little
inline constexpr int32_t kChunkTokens = 256;
inline constexpr int32_t kShortTokens = 2048;
// Query heads of one KV head that one block takes: the n8 side of its tensor core operations.
inline constexpr int kDecodeHeads = 8;

// Chunk i of the absolute positions is [i * tokens, (i + 1) * tokens); a row sees chunks first .. first + count - 1.
struct DecodeChunks {
  int32_t tokens = 0;
  int32_t first = 0;
  int32_t count = 0;  // at most kMaxChunks
};

__host__ __device__ inline int32_t FirstSeenToken(int32_t seen_tokens, int32_t window_tokens) {
  return window_tokens > 0 && seen_tokens > window_tokens ? seen_tokens - window_tokens : 0;
}

// REQUIRES: seen_tokens >= 1, tokens up to and including the row's own.
__host__ __device__ inline DecodeChunks ChunksOf(int32_t chunk_tokens, int32_t seen_tokens, int32_t window_tokens) {
  const int32_t first = FirstSeenToken(seen_tokens, window_tokens) / chunk_tokens;
  return {chunk_tokens, first, (seen_tokens - 1) / chunk_tokens - first + 1};
}
__host__ __device__ inline DecodeChunks CutIntoChunks(int32_t seen_tokens, int32_t window_tokens) {
  const int32_t visible_tokens = seen_tokens - FirstSeenToken(seen_tokens, window_tokens);
  if (visible_tokens <= kShortTokens) return ChunksOf(kSmallChunkTokens, seen_tokens, window_tokens);
  // One chunk fewer than kMaxChunks when aligned: a window may begin and end inside a chunk.
  constexpr int32_t kFullTokens = kChunkTokens * (kMaxChunks - 1);
  const int32_t chunk_tokens = kChunkTokens * ((visible_tokens + kFullTokens - 1) / kFullTokens);
  return ChunksOf(chunk_tokens, seen_tokens, window_tokens);
}

// Decode takes sequences with one row, and those of a few rows that see much, row by row: prefill would leave them to
// one block a KV head. The rows share the chunks that the last of them would have, in longer pieces, so that the
// workspace of the sequence holds them.
inline constexpr int32_t kFewRows = 8;
inline constexpr int32_t kLeastRowChunks = 4;  // fewer are no faster than prefill

struct DecodeCut {
  int32_t tokens = 0;      // of a chunk
  int32_t row_chunks = 0;  // places kept for each row, some may stay empty; 0: prefill takes the sequence
};

__host__ __device__ inline DecodeCut CutForDecode(const DeviceSequence& sequence, int32_t window_tokens) {
  if (sequence.num_rows < 1 || sequence.num_rows > kFewRows) return {};
  const int32_t seen_tokens = sequence.context_tokens + sequence.num_rows;
  const DecodeChunks whole = CutIntoChunks(seen_tokens, window_tokens);
  if (sequence.num_rows == 1) return {whole.tokens, whole.count};
  const int32_t row_chunks = whole.count / sequence.num_rows;
  if (row_chunks < kLeastRowChunks) return {};
  // What a row sees may begin and end inside a chunk.
  const int32_t visible_tokens = seen_tokens - FirstSeenToken(seen_tokens, window_tokens);
  const int32_t least_tokens = (visible_tokens + row_chunks - 2) / (row_chunks - 1);
  return {(least_tokens + kSmallChunkTokens - 1) / kSmallChunkTokens * kSmallChunkTokens, row_chunks};
}
__host__ __device__ inline int32_t NumDecodeChunks(const DeviceSequence& sequence, int32_t window_tokens) {
  return sequence.num_rows < 1 ? 0 : CutForDecode(sequence, window_tokens).row_chunks * sequence.num_rows;
}
__host__ __device__ inline int DecodeHeadTiles(int num_heads, int num_kv_heads) {
  return num_kv_heads * ((num_heads / num_kv_heads + kDecodeHeads - 1) / kDecodeHeads);
}

// Prefill packs (row, query head of the KV head), the head changing fastest, into tiles of this many.
__host__ __device__ constexpr int PrefillTileRows(int head_dim) { return head_dim > 128 ? 64 : 128; }
__host__ __device__ inline int32_t NumPrefillTiles(const DeviceSequence& sequence, const AttentionShape& shape) {
  if (sequence.num_rows < 2 || NumDecodeChunks(sequence, shape.window_tokens) > 0) return 0;
  const int tile_rows = PrefillTileRows(shape.head_dim);
  return (sequence.num_rows * (shape.num_heads / shape.num_kv_heads) + tile_rows - 1) / tile_rows;
}

// What LaunchAttentionPlan leaves: running sums over the sequences, [S + 1] each, and a counter for each of the
// kFewRows rows of a sequence and each decode head tile, zero between launches.
struct AttentionPlanView {
  int32_t* first_chunk;
  int32_t* first_tile;
  uint32_t* arrivals;
};
__host__ __device__ inline AttentionPlanView ViewPlan(void* plan, int num_sequences) {
  auto* words = static_cast<int32_t*>(plan);
  return {words, words + num_sequences + 1, reinterpret_cast<uint32_t*>(words) + 2 * (num_sequences + 1)};
}

// A chunk's unfinished result per head: [largest score, sum of weights, 0, 0, D weighted sums], in float32.
__host__ __device__ constexpr int64_t PartialFloats(int head_dim) { return head_dim + 4; }

// The two fast paths; each reads the plan and leaves the other's sequences alone. Prefill has two kernels for the same
// tiles: LaunchAttentionWarpgroup REQUIRES HasWarpgroupAttention besides.
bool HasFastAttention(const AttentionLaunch& launch);
bool HasWarpgroupAttention(const AttentionLaunch& launch);
cudaError_t LaunchAttentionDecode(const AttentionLaunch& launch, cudaStream_t stream);
cudaError_t LaunchAttentionPrefill(const AttentionLaunch& launch, cudaStream_t stream);
cudaError_t LaunchAttentionWarpgroup(const AttentionLaunch& launch, cudaStream_t stream);

}  // namespace millrace::cuda
