// SPDX-License-Identifier: Apache-2.0
// Per row: q and k heads normed (Qwen3) and rotated by their position, k and v stored into their slot.
#include <cmath>

#include "kernels/check.h"
#include "kernels/cpu/kv_slot.h"
#include "kernels/cpu/op_context.h"
#include "kernels/ops.h"

namespace millrace::cpu {
namespace {

void NormHead(float* head, const float* weight, int64_t dim, float eps) {
  float sum = 0;
  for (int64_t i = 0; i < dim; ++i) sum += head[i] * head[i];
  const float scale = 1.0f / std::sqrt(sum / static_cast<float>(dim) + eps);
  for (int64_t i = 0; i < dim; ++i) head[i] *= scale * weight[i];
}

void RotateHead(float* head, const RopeTable& rope, int64_t position) {
  const int64_t half = rope.rotary_dim / 2;
  const float* cos = rope.cos + position * half;
  const float* sin = rope.sin + position * half;
  for (int64_t i = 0; i < half; ++i) {
    const int64_t first = rope.interleaved ? 2 * i : i;
    const int64_t second = rope.interleaved ? 2 * i + 1 : i + half;
    const float a = head[first], b = head[second];
    head[first] = a * cos[i] - b * sin[i];
    head[second] = b * cos[i] + a * sin[i];
  }
}

}  // namespace

void RopeAppend(const RopeAppendArgs& args, const OpContext& context) {
  const KvLayer& kv = args.kv;
  const int64_t dim = kv.head_dim;
  MILLRACE_CHECK(args.qkv.cols == (args.num_heads + 2 * kv.num_kv_heads) * dim, "qkv's columns do not fit its heads");
  context.pool.ParallelFor(args.qkv.rows, [&](int64_t begin, int64_t end, int /*worker*/) {
    for (int64_t r = begin; r < end; ++r) {
      float* q = static_cast<float*>(args.qkv.data) + r * args.qkv.stride;
      float* k = q + args.num_heads * dim;
      float* v = k + kv.num_kv_heads * dim;
      const int64_t position = args.positions[static_cast<size_t>(r)];
      const int64_t slot = args.slots[static_cast<size_t>(r)];
      for (int64_t h = 0; h < args.num_heads + kv.num_kv_heads; ++h) {
        const float* norm = h < args.num_heads ? args.q_norm : args.k_norm;
        if (norm != nullptr) NormHead(q + h * dim, norm, dim, args.norm_eps);
        RotateHead(q + h * dim, args.rope, position);
      }
      if (slot < 0) continue;
      for (int64_t g = 0; g < kv.num_kv_heads; ++g) {
        const int64_t index = KvVectorIndex(kv, slot / kv.page_tokens, g, slot % kv.page_tokens);
        StoreKvVector(kv, kv.keys, kv.key_scales, index, k + g * dim);
        StoreKvVector(kv, kv.values, kv.value_scales, index, v + g * dim);
      }
    }
  });
}

}  // namespace millrace::cpu
