// SPDX-License-Identifier: Apache-2.0
#pragma once
// The attention kernels, written once over simd.h and compiled per instruction set. Included by attention_avx512.cc
// and attention_avx2.cc only. See attention_kernels.h for the order of additions that every function here keeps.
#include <cstdint>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/simd.h"

namespace millrace::cpu::MILLRACE_SIMD {

constexpr float kLowest = -3.0e38f;  // "nothing seen yet"; finite, so that differences stay numbers
#if defined(__AVX512F__)
constexpr int kQueryBlock = 8;  // 16 sums + 2 keys + 1 query of 32 registers
constexpr int kValueRows = 6;   // 24 sums + 4 values + 1 weight
#else
constexpr int kQueryBlock = 4;  // 8 sums + 2 keys + 1 query of 16 registers
constexpr int kValueRows = 2;   // 8 sums + 4 values + 1 weight
#endif
static_assert(kMaxTileQueries % kQueryBlock == 0);
static_assert(kKvTileTokens % (2 * kWidth) == 0);

inline int64_t PaddedDim(const AttentionTile& tile) { return (tile.head_dim + 15) / 16 * 16; }
inline int NumQueries(const AttentionTile& tile) { return tile.num_rows * tile.num_heads; }

// The queries times the scale, and zeros up to the end of the last block.
inline void PackQueries(const AttentionTile& tile, float* queries) {
  const Vec scale = Set(tile.scale);
  const float* row = tile.q;
  int i = 0;
  for (int r = 0; r < tile.num_rows; ++r, row += tile.q_stride) {
    for (int h = 0; h < tile.num_heads; ++h, ++i) {
      const float* from = row + h * tile.head_dim;
      for (int64_t d = 0; d < tile.head_dim; d += kWidth) {
        Store(queries + i * kQueryStride + d, Mul(LoadPart(from + d, tile.head_dim - d), scale));
      }
    }
  }
  for (; i % kQueryBlock != 0; ++i) {
    for (int64_t d = 0; d < tile.head_dim; d += kWidth) Store(queries + i * kQueryStride + d, Zero());
  }
}

// Where the tokens of one KV tile lie; a token outside [begin, end) is a row of zeros.
struct TileTokens {
  int64_t vectors[kKvTileTokens];  // index of the vector, -1: outside
  int first = 0;
  int last = 0;  // one past the last inside
};

inline TileTokens FindTokens(const AttentionTile& tile, int64_t start, int64_t begin, int64_t end) {
  TileTokens tokens;
  const int64_t first = begin > start ? begin : start;
  const int64_t last = end < start + kKvTileTokens ? end : start + kKvTileTokens;
  for (int i = 0; i < kKvTileTokens; ++i) tokens.vectors[i] = -1;
  for (int64_t token = first; token < last;) {
    const int64_t page = token / tile.page_tokens;
    int64_t vector = tile.pages[page] * tile.page_stride + (token - page * tile.page_tokens);
    const int64_t page_end = (page + 1) * tile.page_tokens < last ? (page + 1) * tile.page_tokens : last;
    for (; token < page_end; ++token, ++vector) tokens.vectors[token - start] = vector;
  }
  tokens.first = static_cast<int>(first - start);
  tokens.last = static_cast<int>(last > start ? last - start : 0);
  return tokens;
}

// Asks for the vectors of a tile to come: pages lie anywhere, so the processor's own prefetch stops at each page's end.
inline void Prefetch(const AttentionTile& tile, const TileTokens& tokens, const void* base) {
  const int64_t vector_bytes = tile.head_dim * static_cast<int64_t>(DTypeBytes(tile.dtype));
  for (int i = tokens.first; i < tokens.last; ++i) {
    const char* from = static_cast<const char*>(base) + tokens.vectors[i] * vector_bytes;
    for (int64_t at = 0; at < vector_bytes; at += 64) __builtin_prefetch(from + at);
  }
}

template <DType kDtype>
inline Vec LoadKv(const void* base, int64_t at, int64_t count) {
  if constexpr (kDtype == DType::kF32) {
    const float* from = static_cast<const float*>(base) + at;
    return count >= kWidth ? Load(from) : LoadPart(from, count);
  } else if constexpr (kDtype == DType::kI8) {
    const int8_t* from = static_cast<const int8_t*>(base) + at;
    if (count >= kWidth) return LoadI8(from);
    int8_t part[16];
    CopyPart(part, from, count);
    return LoadI8(part);
  } else {
    const uint16_t* from = static_cast<const uint16_t*>(base) + at;
    uint16_t part[16];
    if (count < kWidth) {
      CopyPart(part, from, count);
      from = part;
    }
    return kDtype == DType::kF16 ? LoadF16(from) : LoadBf16(from);
  }
}

template <DType kDtype>
void LoadKeys(const AttentionTile& tile, const TileTokens& tokens, float* keys) {
  const int64_t dim = tile.head_dim;
  for (int group = 0; group < kKvTileTokens; group += kWidth) {
    if (group >= tokens.last || group + kWidth <= tokens.first) {
      for (int64_t d = 0; d < dim; ++d) Store(keys + d * kKvTileTokens + group, Zero());
      continue;
    }
    float scales[kWidth];
    for (int i = 0; i < kWidth; ++i) {
      const int64_t vector = tokens.vectors[group + i];
      scales[i] = kDtype == DType::kI8 && vector >= 0 ? tile.key_scales[vector] : 1.0f;
    }
    const Vec scale = Load(scales);
    for (int64_t d = 0; d < dim; d += kWidth) {
      Vec rows[kWidth];
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const int64_t vector = tokens.vectors[group + i];
        rows[i] = vector < 0 ? Zero() : LoadKv<kDtype>(tile.keys, vector * dim + d, dim - d);
      }
      Transpose(rows);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        if (d + i < dim) {
          Store(keys + (d + i) * kKvTileTokens + group, kDtype == DType::kI8 ? Mul(rows[i], scale) : rows[i]);
        }
      }
    }
  }
}

template <DType kDtype>
void LoadValues(const AttentionTile& tile, const TileTokens& tokens, float* values) {
  const int64_t dim = tile.head_dim;
  const int64_t padded = PaddedDim(tile);
  for (int i = tokens.first; i < tokens.last; ++i) {
    const int64_t vector = tokens.vectors[i];
    const Vec scale = Set(kDtype == DType::kI8 ? tile.value_scales[vector] : 1.0f);
    for (int64_t d = 0; d < padded; d += kWidth) {
      const Vec value = d < dim ? LoadKv<kDtype>(tile.values, vector * dim + d, dim - d) : Zero();
      Store(values + i * padded + d, kDtype == DType::kI8 ? Mul(value, scale) : value);
    }
  }
}

template <DType kDtype>
void LoadTile(const AttentionTile& tile, const TileTokens& tokens, AttentionScratch& scratch) {
  LoadKeys<kDtype>(tile, tokens, scratch.keys);
  LoadValues<kDtype>(tile, tokens, scratch.values);
}

// Scores of kRows queries of one block against the tile's tokens.
template <int kRows>
void ScoreBlock(const float* queries, const float* keys, int64_t dim, float* scores) {
  for (int group = 0; group < kKvTileTokens; group += 2 * kWidth) {
    Vec sums[kRows][2];
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = Zero();
    for (int64_t d = 0; d < dim; ++d) {
      const Vec first = Load(keys + d * kKvTileTokens + group);
      const Vec second = Load(keys + d * kKvTileTokens + group + kWidth);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const Vec q = Set(queries[r * kQueryStride + d]);
        sums[r][0] = Fma(q, first, sums[r][0]);
        sums[r][1] = Fma(q, second, sums[r][1]);
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      Store(scores + r * kKvTileTokens + group, sums[r][0]);
      Store(scores + r * kKvTileTokens + group + kWidth, sums[r][1]);
    }
  }
}

inline void Scores(const AttentionTile& tile, AttentionScratch& scratch) {
  const int num_queries = NumQueries(tile);
  for (int first = 0; first < num_queries; first += kQueryBlock) {
    const float* queries = scratch.queries + static_cast<int64_t>(first) * kQueryStride;
    float* scores = scratch.weights + static_cast<int64_t>(first) * kKvTileTokens;
    const int rows = num_queries - first;
    // Rounded up to the next size there is: the queries past the last are zeros.
    if (rows > 4) {
      ScoreBlock<kQueryBlock>(queries, scratch.keys, tile.head_dim, scores);
    } else if (rows > 2) {
      ScoreBlock<4>(queries, scratch.keys, tile.head_dim, scores);
    } else if (rows == 2) {
      ScoreBlock<2>(queries, scratch.keys, tile.head_dim, scores);
    } else {
      ScoreBlock<1>(queries, scratch.keys, tile.head_dim, scores);
    }
  }
}

// Turns one query's scores into weights and moves its running maximum and sums; returns what its out shrinks by.
inline float SoftmaxRow(const AttentionTile& tile, int64_t row, int64_t start, float* weights, float& largest,
                        float* sums) {
  constexpr int kVectors = kKvTileTokens / kWidth;
  const int64_t seen = tile.seen_tokens + row;
  const int64_t first = tile.window_tokens > 0 && seen > tile.window_tokens ? seen - tile.window_tokens : 0;
  if (seen <= start || first >= start + kKvTileTokens) {  // nothing seen: the exact result of what follows
    for (int v = 0; v < kVectors; ++v) Store(weights + v * kWidth, Zero());
    return 1.0f;
  }
  Vec scores[kVectors];
  Mask is_seen[kVectors];
  Vec best = Set(kLowest);
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    // Differences that matter are within a tile, so a float holds them.
    const int64_t at = start + v * kWidth;
    const float from = static_cast<float>(first > at ? (first - at < kWidth ? first - at : kWidth) : 0);
    const float until = static_cast<float>(seen > at ? (seen - at < kWidth ? seen - at : kWidth) : 0);
    is_seen[v] = And(IsAtLeast(Iota(), Set(from)), IsLess(Iota(), Set(until)));
    scores[v] = Load(weights + v * kWidth);
    best = Max(best, Select(is_seen[v], scores[v], Set(kLowest)));
  }
  const float tile_largest = Largest(best);
  const float new_largest = tile_largest > largest ? tile_largest : largest;
  Vec part = Zero();
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const Vec weight = Select(is_seen[v], Exp(scores[v] - Set(new_largest)), Zero());
    Store(weights + v * kWidth, weight);
    part = v == 0 ? weight : Add(part, weight);
  }
  const float shrink = new_largest == largest ? 1.0f : First(Exp(Set(largest - new_largest)));
  largest = new_largest;
  Store(sums, Fma(Load(sums), Set(shrink), part));
  return shrink;
}

// out[r] = out[r] * shrink[r] + sum over the tile's tokens of weight * value, for kRows queries and kVectors vectors.
template <int kRows, int kVectors>
void WeighValues(const float* weights, const float* values, int64_t padded, int first, int last, const float* shrinks,
                 float* out) {
  Vec sums[kRows][kVectors];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const Vec shrink = Set(shrinks[r]);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) sums[r][v] = Mul(Load(out + r * padded + v * kWidth), shrink);
  }
  for (int token = first; token < last; ++token) {
    Vec value[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) value[v] = Load(values + token * padded + v * kWidth);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const Vec weight = Set(weights[r * kKvTileTokens + token]);
#pragma unroll
      for (int v = 0; v < kVectors; ++v) sums[r][v] = Fma(weight, value[v], sums[r][v]);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) Store(out + r * padded + v * kWidth, sums[r][v]);
  }
}

template <int kRows>
void WeighRows(const AttentionScratch& scratch, int row, int64_t padded, const TileTokens& tokens, const float* shrinks,
               float* out) {
  const float* weights = scratch.weights + static_cast<int64_t>(row) * kKvTileTokens;
  const float* values = scratch.values;
  float* to = out + row * padded;
  int64_t d = 0;
  for (; d + 4 * kWidth <= padded; d += 4 * kWidth) {
    WeighValues<kRows, 4>(weights, values + d, padded, tokens.first, tokens.last, shrinks + row, to + d);
  }
  for (; d < padded; d += kWidth) {
    WeighValues<kRows, 1>(weights, values + d, padded, tokens.first, tokens.last, shrinks + row, to + d);
  }
}

inline void AddTile(const AttentionTile& tile, int64_t start, const TileTokens& tokens, const TileTokens& next,
                    AttentionScratch& scratch) {
  switch (tile.dtype) {
    case DType::kF32:
      LoadTile<DType::kF32>(tile, tokens, scratch);
      break;
    case DType::kF16:
      LoadTile<DType::kF16>(tile, tokens, scratch);
      break;
    case DType::kI8:
      LoadTile<DType::kI8>(tile, tokens, scratch);
      break;
    default:
      LoadTile<DType::kBF16>(tile, tokens, scratch);
  }
  Prefetch(tile, next, tile.keys);
  Scores(tile, scratch);
  Prefetch(tile, next, tile.values);
  const int num_queries = NumQueries(tile);
  AttentionState& state = scratch.split;
  float shrinks[kMaxTileQueries];
  for (int row = 0, i = 0; row < tile.num_rows; ++row) {
    for (int head = 0; head < tile.num_heads; ++head, ++i) {
      shrinks[i] = SoftmaxRow(tile, row, start, scratch.weights + static_cast<int64_t>(i) * kKvTileTokens,
                              state.largest[i], state.sums + static_cast<int64_t>(i) * kSumLanes);
    }
  }
  const int64_t padded = PaddedDim(tile);
  int row = 0;
  for (; row + kValueRows <= num_queries; row += kValueRows) {
    WeighRows<kValueRows>(scratch, row, padded, tokens, shrinks, state.out);
  }
  if constexpr (kValueRows > 4) {
    for (; row + 4 <= num_queries; row += 4) WeighRows<4>(scratch, row, padded, tokens, shrinks, state.out);
    for (; row + 2 <= num_queries; row += 2) WeighRows<2>(scratch, row, padded, tokens, shrinks, state.out);
  }
  for (; row < num_queries; ++row) WeighRows<1>(scratch, row, padded, tokens, shrinks, state.out);
}

inline void StartState(const AttentionTile& tile, AttentionState& state) {
  const int num_queries = NumQueries(tile);
  for (int i = 0; i < num_queries; ++i) {
    state.largest[i] = kLowest;
    for (int lane = 0; lane < kSumLanes; lane += kWidth) Store(state.sums + i * kSumLanes + lane, Zero());
  }
  for (int64_t i = 0; i < num_queries * PaddedDim(tile); i += kWidth) Store(state.out + i, Zero());
}

// Tokens any row of the tile sees: [first, last).
inline int64_t FirstToken(const AttentionTile& tile) {
  return tile.window_tokens > 0 && tile.seen_tokens > tile.window_tokens ? tile.seen_tokens - tile.window_tokens : 0;
}
inline int64_t LastToken(const AttentionTile& tile) { return tile.seen_tokens + tile.num_rows - 1; }

inline void RunSplit(const AttentionTile& tile, int64_t split, AttentionScratch& scratch) {
  StartState(tile, scratch.split);
  const int64_t first = FirstToken(tile);
  const int64_t last = LastToken(tile);
  const int64_t split_begin = split * kKvSplitTokens;
  const int64_t begin = first > split_begin ? first : split_begin;
  const int64_t end = last < split_begin + kKvSplitTokens ? last : split_begin + kKvSplitTokens;
  int64_t start = begin / kKvTileTokens * kKvTileTokens;
  if (start >= end) return;
  TileTokens tokens = FindTokens(tile, start, begin, end);
  for (; start < end; start += kKvTileTokens) {
    const TileTokens next = FindTokens(tile, start + kKvTileTokens, begin, end);  // none past the end
    AddTile(tile, start, tokens, next, scratch);
    tokens = next;
  }
}

inline void AttendSplit(const AttentionTile& tile, int64_t split, AttentionScratch& scratch) {
  PackQueries(tile, scratch.queries);
  RunSplit(tile, split, scratch);
}

inline void StartTotal(const AttentionTile& tile, AttentionScratch& scratch) { StartState(tile, scratch.total); }

inline void Merge(const AttentionTile& tile, AttentionScratch& scratch) {
  AttentionState& total = scratch.total;
  const AttentionState& split = scratch.split;
  const int64_t padded = PaddedDim(tile);
  for (int i = 0; i < NumQueries(tile); ++i) {
    const float largest = total.largest[i] > split.largest[i] ? total.largest[i] : split.largest[i];
    const Vec keep = Exp(Set(total.largest[i] - largest));
    const Vec add = Exp(Set(split.largest[i] - largest));
    total.largest[i] = largest;
    float* sums = total.sums + i * kSumLanes;
    Store(sums, Fma(Load(split.sums + i * kSumLanes), add, Mul(Load(sums), keep)));
    for (int64_t d = i * padded; d < (i + 1) * padded; d += kWidth) {
      Store(total.out + d, Fma(Load(split.out + d), add, Mul(Load(total.out + d), keep)));
    }
  }
}

inline void Finish(const AttentionTile& tile, AttentionScratch& scratch) {
  const int64_t padded = PaddedDim(tile);
  for (int i = 0; i < NumQueries(tile); ++i) {
    float* to = tile.out + (i / tile.num_heads) * tile.out_stride + (i % tile.num_heads) * tile.head_dim;
    const Vec scale = Set(1.0f / Sum(Load(scratch.total.sums + i * kSumLanes)));
    for (int64_t d = 0; d < tile.head_dim; d += kWidth) {
      StorePart(to + d, Mul(Load(scratch.total.out + i * padded + d), scale), tile.head_dim - d);
    }
  }
}

inline void Attend(const AttentionTile& tile, AttentionScratch& scratch) {
  PackQueries(tile, scratch.queries);
  StartTotal(tile, scratch);
  const int64_t last_split = (LastToken(tile) - 1) / kKvSplitTokens;
  for (int64_t split = FirstToken(tile) / kKvSplitTokens; split <= last_split; ++split) {
    RunSplit(tile, split, scratch);
    Merge(tile, scratch);
  }
  Finish(tile, scratch);
}

inline AttentionKernels Kernels() {
  return {.attend = Attend, .attend_split = AttendSplit, .start_total = StartTotal, .merge = Merge, .finish = Finish};
}

}  // namespace millrace::cpu::MILLRACE_SIMD
