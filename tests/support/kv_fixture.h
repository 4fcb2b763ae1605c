// SPDX-License-Identifier: Apache-2.0
#pragma once
// KV memory of one layer for tests: scattered pages, unused slots poisoned with NaN, and a double-precision attention.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/kv_slot.h"
#include "kernels/ops.h"
#include "tests/support/reference.h"

namespace millrace::testing {

struct AttentionShape {
  int num_heads = 8;
  int num_kv_heads = 2;
  int head_dim = 64;
  int page_tokens = 16;
  DType dtype = DType::kBF16;
  int window_tokens = 0;
};

class KvFixture {
 public:
  // Pages for num_tokens of one sequence, in an order shuffled by `seed`, all slots NaN.
  KvFixture(const AttentionShape& shape, int num_tokens, uint32_t seed) : shape_(shape) {
    const int num_pages = (num_tokens + shape.page_tokens - 1) / shape.page_tokens + 2;
    const size_t num_vectors =
        static_cast<size_t>(num_pages) * static_cast<size_t>(shape.num_kv_heads * shape.page_tokens);
    const size_t num_bytes = num_vectors * static_cast<size_t>(shape.head_dim) * DTypeBytes(shape.dtype);
    keys_.assign(num_bytes, 0xff);  // a NaN in every float format
    values_.assign(num_bytes, 0xff);
    key_scales_.assign(num_vectors, std::numeric_limits<float>::quiet_NaN());
    value_scales_ = key_scales_;
    for (int page = 0; page < num_pages; ++page) pages_.push_back(page);
    std::shuffle(pages_.begin(), pages_.end(), std::mt19937(seed));
  }

  KvLayer layer() {
    return {.keys = keys_.data(),
            .values = values_.data(),
            .key_scales = key_scales_.data(),
            .value_scales = value_scales_.data(),
            .dtype = shape_.dtype,
            .num_pages = static_cast<int64_t>(pages_.size()),
            .page_tokens = shape_.page_tokens,
            .num_kv_heads = shape_.num_kv_heads,
            .head_dim = shape_.head_dim};
  }
  int64_t SlotOf(int64_t position) const {
    return int64_t{pages_[static_cast<size_t>(position / shape_.page_tokens)]} * shape_.page_tokens +
           position % shape_.page_tokens;
  }
  // Stores token `position`'s key and value heads, [G * D] each.
  void Store(int64_t position, const float* keys, const float* values) {
    const KvLayer kv = layer();
    for (int64_t g = 0; g < shape_.num_kv_heads; ++g) {
      const int64_t index = IndexOf(position, g);
      cpu::StoreKvVector(kv, kv.keys, kv.key_scales, index, keys + g * shape_.head_dim);
      cpu::StoreKvVector(kv, kv.values, kv.value_scales, index, values + g * shape_.head_dim);
    }
  }
  const int32_t* pages() const { return pages_.data(); }

  // The row at `position` of query q [H * D], over the stored (rounded) keys and values, in double.
  std::vector<double> Reference(const float* q, int64_t position, double scale) {
    const KvLayer kv = layer();
    const int64_t dim = shape_.head_dim, group = shape_.num_heads / shape_.num_kv_heads;
    const int64_t first = shape_.window_tokens > 0 ? std::max<int64_t>(0, position + 1 - shape_.window_tokens) : 0;
    std::vector<double> out(static_cast<size_t>(shape_.num_heads * dim), 0.0);
    std::vector<float> vector(static_cast<size_t>(dim));
    for (int64_t h = 0; h < shape_.num_heads; ++h) {
      std::vector<double> scores;
      for (int64_t t = first; t <= position; ++t) {
        cpu::LoadKvVector(kv, kv.keys, kv.key_scales, IndexOf(t, h / group), vector.data());
        double dot = 0;
        for (int64_t i = 0; i < dim; ++i) dot += static_cast<double>(q[h * dim + i]) * vector[static_cast<size_t>(i)];
        scores.push_back(dot * scale);
      }
      const double largest = *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      for (double& score : scores) sum += score = std::exp(score - largest);
      for (int64_t t = first; t <= position; ++t) {
        cpu::LoadKvVector(kv, kv.values, kv.value_scales, IndexOf(t, h / group), vector.data());
        const double weight = scores[static_cast<size_t>(t - first)] / sum;
        for (int64_t i = 0; i < dim; ++i)
          out[static_cast<size_t>(h * dim + i)] += weight * vector[static_cast<size_t>(i)];
      }
    }
    return out;
  }

 private:
  int64_t IndexOf(int64_t position, int64_t kv_head) {
    return cpu::KvVectorIndex(layer(), pages_[static_cast<size_t>(position / shape_.page_tokens)], kv_head,
                              position % shape_.page_tokens);
  }

  const AttentionShape shape_;
  std::vector<uint8_t> keys_, values_;
  std::vector<float> key_scales_, value_scales_;
  std::vector<int32_t> pages_;
};

}  // namespace millrace::testing
