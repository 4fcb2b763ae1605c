// SPDX-License-Identifier: Apache-2.0
// Attention over pages with AVX-512, float32 arithmetic. A task is a KV head with a block of rows: all its queries
// (rows x heads of the group) share each tile of 32 tokens, loaded once as float32, keys transposed. Tiles begin at
// multiples of 32 of the absolute position and every query adds in the same order in every task shape, so a row's bits
// depend neither on chunking nor on the batch. Online softmax: arXiv 1805.02867. Limited by FMA in prefill and by
// cache bandwidth in decode.
#include "kernels/cpu/attention_avx512.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/cpu/kv_slot.h"
#include "kernels/cpu/vector_math_avx512.h"

namespace millrace::cpu {
namespace {

constexpr int64_t kTileTokens = 32;
constexpr int64_t kMaxQueries = 64;  // of a task
constexpr float kNever = -std::numeric_limits<float>::infinity();

// Memory of one thread, grown once.
struct Scratch {
  std::vector<float> floats;
  float* keys = nullptr;     // [D, 32] transposed
  float* values = nullptr;   // [32, D]
  float* queries = nullptr;  // [Q, D]
  float* outs = nullptr;     // [Q, D]
  float* weights = nullptr;  // [Q, 32]
  float largest[kMaxQueries];
  float sums[kMaxQueries];

  void Reserve(int64_t dim) {
    const size_t needed =
        static_cast<size_t>(2 * kTileTokens * dim + 2 * kMaxQueries * dim + kMaxQueries * kTileTokens + 16);
    if (floats.size() < needed) floats.resize(needed);
    const uintptr_t address = reinterpret_cast<uintptr_t>(floats.data());
    keys = reinterpret_cast<float*>((address + 63) / 64 * 64);
    values = keys + kTileTokens * dim;
    queries = values + kTileTokens * dim;
    outs = queries + kMaxQueries * dim;
    weights = outs + kMaxQueries * dim;
  }
};

struct Task {
  const AttentionSequence* sequence;
  int64_t kv_head;
  int64_t first_row;  // of the sequence
  int64_t num_rows;
};

__m512 LoadKv(const KvLayer& kv, const void* base, const float* scales, int64_t index, int64_t at) {
  const int64_t from = index * kv.head_dim + at;
  switch (kv.dtype) {
    case DType::kF32:
      return _mm512_loadu_ps(static_cast<const float*>(base) + from);
    case DType::kF16:
      return LoadF16(static_cast<const uint16_t*>(base) + from);
    case DType::kI8:
      return _mm512_mul_ps(LoadI8(static_cast<const int8_t*>(base) + from), _mm512_set1_ps(scales[index]));
    default:
      return LoadBf16(static_cast<const uint16_t*>(base) + from);
  }
}

// Loads tokens [tile, tile + 32) as float32; those at or beyond num_tokens become zero, whatever lies in memory.
void LoadTile(const KvLayer& kv, const Task& task, int64_t tile, int64_t num_tokens, Scratch& scratch) {
  const int64_t dim = kv.head_dim;
  int64_t indices[kTileTokens];
  for (int64_t t = 0; t < kTileTokens; ++t) {
    const int64_t token = tile + t;
    indices[t] = token < num_tokens ? KvVectorIndex(kv, task.sequence->pages[token / kv.page_tokens], task.kv_head,
                                                    token % kv.page_tokens)
                                    : -1;
  }
  for (int64_t at = 0; at < dim; at += 16) {
    for (int64_t half = 0; half < kTileTokens; half += 16) {
      __m512 rows[16];
      for (int64_t t = 0; t < 16; ++t) {
        const int64_t index = indices[half + t];
        rows[t] = index < 0 ? _mm512_setzero_ps() : LoadKv(kv, kv.keys, kv.key_scales, index, at);
        const __m512 value = index < 0 ? _mm512_setzero_ps() : LoadKv(kv, kv.values, kv.value_scales, index, at);
        _mm512_store_ps(scratch.values + (half + t) * dim + at, value);
      }
      Transpose16x16(rows);
      for (int64_t d = 0; d < 16; ++d) _mm512_store_ps(scratch.keys + (at + d) * kTileTokens + half, rows[d]);
    }
  }
}

// Raw dot products of kQueries queries with the tile, into weights.
template <int kQueries>
void Dot(const Scratch& scratch, int64_t first_query, int64_t dim) {
  __m512 low[kQueries], high[kQueries];
  for (int q = 0; q < kQueries; ++q) low[q] = high[q] = _mm512_setzero_ps();
  const float* queries = scratch.queries + first_query * dim;
  for (int64_t d = 0; d < dim; ++d) {
    const __m512 key_low = _mm512_load_ps(scratch.keys + d * kTileTokens);
    const __m512 key_high = _mm512_load_ps(scratch.keys + d * kTileTokens + 16);
    for (int q = 0; q < kQueries; ++q) {
      const __m512 query = _mm512_set1_ps(queries[q * dim + d]);
      low[q] = _mm512_fmadd_ps(query, key_low, low[q]);
      high[q] = _mm512_fmadd_ps(query, key_high, high[q]);
    }
  }
  for (int q = 0; q < kQueries; ++q) {
    float* weights = scratch.weights + (first_query + q) * kTileTokens;
    _mm512_store_ps(weights, low[q]);
    _mm512_store_ps(weights + 16, high[q]);
  }
}

// out = out * shrink (done before) + weights * values, kQueries queries by kVectors vectors of the head at a time.
template <int kQueries, int kVectors>
void Accumulate(const Scratch& scratch, int64_t first_query, int64_t dim, int64_t at) {
  __m512 sums[kQueries][kVectors];
  for (int q = 0; q < kQueries; ++q) {
    for (int v = 0; v < kVectors; ++v)
      sums[q][v] = _mm512_load_ps(scratch.outs + (first_query + q) * dim + at + 16 * v);
  }
  for (int64_t t = 0; t < kTileTokens; ++t) {
    __m512 values[kVectors];
    for (int v = 0; v < kVectors; ++v) values[v] = _mm512_load_ps(scratch.values + t * dim + at + 16 * v);
    for (int q = 0; q < kQueries; ++q) {
      const __m512 weight = _mm512_set1_ps(scratch.weights[(first_query + q) * kTileTokens + t]);
      for (int v = 0; v < kVectors; ++v) sums[q][v] = _mm512_fmadd_ps(weight, values[v], sums[q][v]);
    }
  }
  for (int q = 0; q < kQueries; ++q) {
    for (int v = 0; v < kVectors; ++v)
      _mm512_store_ps(scratch.outs + (first_query + q) * dim + at + 16 * v, sums[q][v]);
  }
}

template <int kQueries>
void AccumulateAll(const Scratch& scratch, int64_t first_query, int64_t dim) {
  int64_t at = 0;
  for (; at + 64 <= dim; at += 64) Accumulate<kQueries, 4>(scratch, first_query, dim, at);
  for (; at < dim; at += 16) Accumulate<kQueries, 1>(scratch, first_query, dim, at);
}

// Turns a query's scores into weights and shrinks what it has summed so far. A tile it sees nothing of is a no-op.
void Softmax(Scratch& scratch, int64_t query, int64_t dim, float scale, uint32_t is_seen) {
  float* weights = scratch.weights + query * kTileTokens;
  if (is_seen == 0) {
    _mm512_store_ps(weights, _mm512_setzero_ps());
    _mm512_store_ps(weights + 16, _mm512_setzero_ps());
    return;
  }
  const __m512 never = _mm512_set1_ps(kNever);
  const __m512 factor = _mm512_set1_ps(scale);
  const __m512 low = _mm512_mask_mul_ps(never, static_cast<__mmask16>(is_seen), _mm512_load_ps(weights), factor);
  const __m512 high =
      _mm512_mask_mul_ps(never, static_cast<__mmask16>(is_seen >> 16), _mm512_load_ps(weights + 16), factor);
  const float before = scratch.largest[query];
  const float largest = std::max(before, _mm512_reduce_max_ps(_mm512_max_ps(low, high)));
  const __m512 shift = _mm512_set1_ps(largest);
  const __m512 weight_low = Exp(_mm512_sub_ps(low, shift)), weight_high = Exp(_mm512_sub_ps(high, shift));
  _mm512_store_ps(weights, weight_low);
  _mm512_store_ps(weights + 16, weight_high);
  const float sum = _mm512_reduce_add_ps(_mm512_add_ps(weight_low, weight_high));
  scratch.largest[query] = largest;
  if (before == largest) {
    scratch.sums[query] += sum;
    return;
  }
  const __m512 shrink = Exp(_mm512_set1_ps(before - largest));
  scratch.sums[query] = scratch.sums[query] * _mm512_cvtss_f32(shrink) + sum;
  for (int64_t at = 0; at < dim; at += 16) {
    float* out = scratch.outs + query * dim + at;
    _mm512_store_ps(out, _mm512_mul_ps(_mm512_load_ps(out), shrink));
  }
}

// Bit t set: the row that sees tokens [first, seen) sees token tile + t.
uint32_t SeenMask(int64_t first, int64_t seen, int64_t tile) {
  const int64_t begin = std::clamp<int64_t>(first - tile, 0, kTileTokens);
  const int64_t end = std::clamp<int64_t>(seen - tile, 0, kTileTokens);
  if (begin >= end) return 0;
  const uint64_t below_end = (uint64_t{1} << end) - 1, below_begin = (uint64_t{1} << begin) - 1;
  return static_cast<uint32_t>(below_end & ~below_begin);
}

void RunTask(const AttentionArgs& args, const Task& task, Scratch& scratch) {
  const int64_t dim = args.kv.head_dim;
  const int64_t group = args.num_heads / args.kv.num_kv_heads;
  const int64_t num_queries = task.num_rows * group;
  const int64_t first_q_row = task.sequence->first_row + task.first_row;
  const int64_t context = task.sequence->context_tokens + task.first_row;
  scratch.Reserve(dim);
  for (int64_t query = 0; query < num_queries; ++query) {
    const float* q = static_cast<const float*>(args.q.data) + (first_q_row + query / group) * args.q.stride +
                     (task.kv_head * group + query % group) * dim;
    std::copy_n(q, dim, scratch.queries + query * dim);
    std::fill_n(scratch.outs + query * dim, dim, 0.0f);
    scratch.largest[query] = kNever;
    scratch.sums[query] = 0;
  }
  const auto first_seen = [&](int64_t row) {
    return args.window_tokens > 0 ? std::max<int64_t>(0, context + row + 1 - args.window_tokens) : 0;
  };
  const int64_t num_tokens = context + task.num_rows;  // the last row sees them all
  for (int64_t tile = first_seen(0) / kTileTokens * kTileTokens; tile < num_tokens; tile += kTileTokens) {
    LoadTile(args.kv, task, tile, num_tokens, scratch);
    int64_t query = 0;
    for (; query + 4 <= num_queries; query += 4) Dot<4>(scratch, query, dim);
    for (; query < num_queries; ++query) Dot<1>(scratch, query, dim);
    for (query = 0; query < num_queries; ++query) {
      const int64_t row = query / group;
      Softmax(scratch, query, dim, args.scale, SeenMask(first_seen(row), context + row + 1, tile));
    }
    for (query = 0; query + 4 <= num_queries; query += 4) AccumulateAll<4>(scratch, query, dim);
    for (; query < num_queries; ++query) AccumulateAll<1>(scratch, query, dim);
  }
  for (int64_t query = 0; query < num_queries; ++query) {
    float* out = static_cast<float*>(args.out.data) + (first_q_row + query / group) * args.out.stride +
                 (task.kv_head * group + query % group) * dim;
    const __m512 inverse = _mm512_set1_ps(1.0f / scratch.sums[query]);
    for (int64_t at = 0; at < dim; at += 16) {
      _mm512_storeu_ps(out + at, _mm512_mul_ps(_mm512_load_ps(scratch.outs + query * dim + at), inverse));
    }
  }
}

}  // namespace

void AttentionAvx512(const AttentionArgs& args, const OpContext& context) {
  const int64_t group = args.num_heads / args.kv.num_kv_heads;
  const int64_t rows_a_task = std::max<int64_t>(1, kMaxQueries / group);
  // Tasks are numbered without a list: sequence by sequence, then KV head, then block of rows.
  int64_t num_tasks = 0;
  const auto blocks_of = [&](const AttentionSequence& sequence) {
    return (sequence.num_rows + rows_a_task - 1) / rows_a_task;
  };
  for (const AttentionSequence& sequence : args.sequences) num_tasks += blocks_of(sequence) * args.kv.num_kv_heads;
  context.pool.ParallelForChunks(num_tasks, 1, [&](int64_t begin, int64_t end, int /*worker*/) {
    thread_local Scratch scratch;
    for (int64_t i = begin; i < end; ++i) {
      int64_t left = i;
      size_t s = 0;
      while (left >= blocks_of(args.sequences[s]) * args.kv.num_kv_heads) {
        left -= blocks_of(args.sequences[s++]) * args.kv.num_kv_heads;
      }
      const AttentionSequence& sequence = args.sequences[s];
      const int64_t first_row = left % blocks_of(sequence) * rows_a_task;
      RunTask(args,
              {.sequence = &sequence,
               .kv_head = left / blocks_of(sequence),
               .first_row = first_row,
               .num_rows = std::min<int64_t>(rows_a_task, sequence.num_rows - first_row)},
              scratch);
    }
  });
}

}  // namespace millrace::cpu
