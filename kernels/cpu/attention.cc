// SPDX-License-Identifier: Apache-2.0
// softmax(q k^T * scale) v over pages, by online softmax (arXiv 1805.02867) over tiles of tokens that start at
// multiples of kTileTokens of the absolute position: a row's additions never depend on how the step was cut.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/check.h"
#include "kernels/cpu/attention_avx512.h"
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

}  // namespace

void Attention(const AttentionArgs& args, const OpContext& context) {
  MILLRACE_CHECK(args.kv.head_dim <= kMaxHeadDim, "the head dimension exceeds what attention was built for");
  const bool has_many_heads = args.num_heads / args.kv.num_kv_heads > 64;
  if (context.path == CpuPath::kAvx512 && args.kv.head_dim % 16 == 0 && !has_many_heads) {
    return AttentionAvx512(args, context);
  }
  for (const AttentionSequence& sequence : args.sequences) {
    context.pool.ParallelForChunks(static_cast<int64_t>(sequence.num_rows) * args.num_heads, 4,
                                   [&](int64_t begin, int64_t end, int /*worker*/) {
                                     for (int64_t i = begin; i < end; ++i)
                                       AttendRow(args, sequence, i / args.num_heads, i % args.num_heads);
                                   });
  }
}

}  // namespace millrace::cpu
