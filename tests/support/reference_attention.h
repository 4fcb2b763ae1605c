// SPDX-License-Identifier: Apache-2.0
#pragma once
// Paged KV memory filled at random, scattered and poisoned, and attention over it in double precision. Tests only.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cpu/kv_slot.h"
#include "kernels/ops.h"
#include "tests/support/reference.h"

namespace millrace::testing {

// KV memory of one layer whose every slot is NaN until stored to.
class TestKv {
 public:
  TestKv(DType dtype, int num_kv_heads, int head_dim, int page_tokens, int64_t num_pages) {
    const size_t vectors = static_cast<size_t>(num_pages) * static_cast<size_t>(num_kv_heads * page_tokens);
    // 0xff bytes are a NaN in every float type; int8 gets NaN scales.
    keys_.assign(vectors * static_cast<size_t>(head_dim) * DTypeBytes(dtype), 0xff);
    values_ = keys_;
    key_scales_.assign(vectors, std::numeric_limits<float>::quiet_NaN());
    value_scales_ = key_scales_;
    layer_ = {.keys = keys_.data(),
              .values = values_.data(),
              .key_scales = key_scales_.data(),
              .value_scales = value_scales_.data(),
              .dtype = dtype,
              .num_pages = num_pages,
              .page_tokens = page_tokens,
              .num_kv_heads = num_kv_heads,
              .head_dim = head_dim};
  }
  TestKv(const TestKv&) = delete;
  TestKv& operator=(const TestKv&) = delete;

  const KvLayer& layer() const { return layer_; }

  // Stores token vectors [first, last) of `seed`'s sequence at their places in `pages`: equal for every layout.
  void Fill(const std::vector<int32_t>& pages, int64_t first, int64_t last, uint32_t seed) {
    for (int64_t token = first; token < last; ++token) {
      for (int64_t head = 0; head < layer_.num_kv_heads; ++head) {
        const uint32_t own = seed * 7919 + static_cast<uint32_t>(token * layer_.num_kv_heads + head) * 2;
        const int64_t at = cpu::KvVectorIndex(layer_, pages[static_cast<size_t>(token / layer_.page_tokens)], head,
                                              token % layer_.page_tokens);
        cpu::StoreKvVector(layer_, keys_.data(), layer_.key_scales, at, RandomFloats(layer_.head_dim, own).data());
        cpu::StoreKvVector(layer_, values_.data(), layer_.value_scales, at,
                           RandomFloats(layer_.head_dim, own + 1).data());
      }
    }
  }

 private:
  std::vector<uint8_t> keys_, values_;
  std::vector<float> key_scales_, value_scales_;
  KvLayer layer_;
};

// `count` distinct pages of [0, num_pages) in random order.
inline std::vector<int32_t> ScatteredPages(int64_t count, int64_t num_pages, uint32_t seed) {
  std::vector<int32_t> pages(static_cast<size_t>(num_pages));
  std::iota(pages.begin(), pages.end(), 0);
  std::shuffle(pages.begin(), pages.end(), std::mt19937(seed));
  pages.resize(static_cast<size_t>(count));
  return pages;
}

// One head of one row in double. `magnitude` is the weighted mean of |value|, for the tolerance.
struct HeadReference {
  std::vector<double> out, magnitude;
  double largest_score = 0;  // of sum |q k| * scale, what rounding of a score is proportional to
};

inline HeadReference ReferenceHead(const AttentionArgs& args, const AttentionSequence& sequence, int64_t row,
                                   int64_t head) {
  const KvLayer& kv = args.kv;
  const int64_t dim = kv.head_dim;
  const int64_t seen = sequence.context_tokens + row + 1;
  const int64_t first = args.window_tokens > 0 ? std::max<int64_t>(0, seen - args.window_tokens) : 0;
  const float* q = static_cast<const float*>(args.q.data) + (sequence.first_row + row) * args.q.stride + head * dim;
  const auto index = [&](int64_t token) {
    return cpu::KvVectorIndex(kv, sequence.pages[token / kv.page_tokens], head / (args.num_heads / kv.num_kv_heads),
                              token % kv.page_tokens);
  };
  HeadReference result;
  std::vector<double> scores;
  std::vector<float> vector(static_cast<size_t>(dim));
  for (int64_t token = first; token < seen; ++token) {
    cpu::LoadKvVector(kv, kv.keys, kv.key_scales, index(token), vector.data());
    double dot = 0, magnitude = 0;
    for (int64_t d = 0; d < dim; ++d) {
      dot += static_cast<double>(q[d]) * vector[static_cast<size_t>(d)];
      magnitude += std::abs(static_cast<double>(q[d]) * vector[static_cast<size_t>(d)]);
    }
    scores.push_back(dot * args.scale);
    result.largest_score = std::max(result.largest_score, magnitude * std::abs(args.scale));
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  result.out.assign(static_cast<size_t>(dim), 0);
  result.magnitude.assign(static_cast<size_t>(dim), 0);
  double sum = 0;
  for (const double score : scores) sum += std::exp(score - largest);
  for (int64_t token = first; token < seen; ++token) {
    const double weight = std::exp(scores[static_cast<size_t>(token - first)] - largest) / sum;
    cpu::LoadKvVector(kv, kv.values, kv.value_scales, index(token), vector.data());
    for (size_t d = 0; d < static_cast<size_t>(dim); ++d) {
      result.out[d] += weight * vector[d];
      result.magnitude[d] += weight * std::abs(static_cast<double>(vector[d]));
    }
  }
  return result;
}

}  // namespace millrace::testing
