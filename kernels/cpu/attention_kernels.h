// SPDX-License-Identifier: Apache-2.0
#pragma once
// What one instruction set brings to attention: one tile of query rows against a range of KV splits. Plain structs
// only (see matmul_kernels.h for why). Stateless; any thread, with a scratch of its own.
//
// Order of additions. Scores, weighted values and sums of one row are chains over the head dimension and over tokens
// in rising order, in tiles of kKvTileTokens that start at multiples of the absolute position, gathered in splits of
// kKvSplitTokens that start likewise and are merged in rising order. A token a row does not see adds an exact zero.
// Hence a row's bits depend on its query, its tokens and nothing else: not on the batch, the pages, the threads, or on
// where a prefill was cut.
#include <cstdint>

#include "kernels/tensor.h"

namespace millrace::cpu {

constexpr int kKvTileTokens = 32;
constexpr int kKvSplitTokens = 1024;
constexpr int kMaxTileQueries = 64;  // query rows times heads of one KV head
constexpr int kMaxFastHeadDim = 256;
constexpr int kQueryStride = kMaxFastHeadDim + 16;  // constant for addressing, odd lines against cache conflicts
constexpr int kSumLanes = 16;

// Queries of consecutive rows for some heads of one KV head. Query i is row i / num_heads, head i % num_heads.
struct AttentionTile {
  const float* q = nullptr;  // first row, first head
  int64_t q_stride = 0;      // between rows
  float* out = nullptr;      // like q
  int64_t out_stride = 0;
  int num_rows = 0;
  int num_heads = 0;
  int head_dim = 0;
  float scale = 0;
  int64_t seen_tokens = 0;    // by the first row; each further row sees one more
  int64_t window_tokens = 0;  // 0: none
  // Memory of the KV head: vector of a token = page * page_stride + offset in the page, in units of head_dim.
  const void* keys = nullptr;
  const void* values = nullptr;
  const float* key_scales = nullptr;
  const float* value_scales = nullptr;
  DType dtype = DType::kF32;
  const int32_t* pages = nullptr;
  int page_tokens = 0;
  int64_t page_stride = 0;
};

// The running softmax of a tile: out holds sums weighted by e^(score - largest).
struct AttentionState {
  float largest[kMaxTileQueries];
  alignas(64) float sums[kMaxTileQueries * kSumLanes];       // per lane of a vector, added up at the end
  alignas(64) float out[kMaxTileQueries * kMaxFastHeadDim];  // row stride: head_dim rounded up to 16
};

struct AttentionScratch {
  alignas(64) float queries[kMaxTileQueries * kQueryStride];   // scaled; past the last: zeros
  alignas(64) float keys[kMaxFastHeadDim * kKvTileTokens];     // [dim][token]
  alignas(64) float values[kKvTileTokens * kMaxFastHeadDim];   // [token][dim]
  alignas(64) float weights[kMaxTileQueries * kKvTileTokens];  // [query][token]
  alignas(64) float zeros[kMaxFastHeadDim];                    // stands in for a token outside
  AttentionState split;
  AttentionState total;
};

struct AttentionKernels {
  // All splits the tile sees, to `out`.
  void (*attend)(const AttentionTile& tile, AttentionScratch& scratch) = nullptr;
  // One split alone, left in scratch.split.
  void (*attend_split)(const AttentionTile& tile, int64_t split, AttentionScratch& scratch) = nullptr;
  // Adds scratch.split to scratch.total; StartTotal first.
  void (*start_total)(const AttentionTile& tile, AttentionScratch& scratch) = nullptr;
  void (*merge)(const AttentionTile& tile, AttentionScratch& scratch) = nullptr;
  // scratch.total to `out`.
  void (*finish)(const AttentionTile& tile, AttentionScratch& scratch) = nullptr;
};

AttentionKernels AttentionKernelsAvx512();
AttentionKernels AttentionKernelsAvx2();

}  // namespace millrace::cpu
