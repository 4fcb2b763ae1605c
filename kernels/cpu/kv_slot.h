// SPDX-License-Identifier: Apache-2.0
#pragma once
// One head's vector in a KV slot, in any KV dtype: where it lies, how it is written and read. Plain code, any thread.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/cpu/dtype_convert.h"
#include "kernels/ops.h"

namespace millrace::cpu {

// Index of (page, head, offset) counted in vectors of head_dim.
inline int64_t KvVectorIndex(const KvLayer& kv, int64_t page, int64_t head, int64_t offset) {
  return (page * kv.num_kv_heads + head) * kv.page_tokens + offset;
}

inline void StoreKvVector(const KvLayer& kv, void* base, float* scales, int64_t index, const float* values) {
  const int64_t dim = kv.head_dim;
  switch (kv.dtype) {
    case DType::kF32:
      std::copy_n(values, dim, static_cast<float*>(base) + index * dim);
      break;
    case DType::kF16:
      for (int64_t i = 0; i < dim; ++i) static_cast<uint16_t*>(base)[index * dim + i] = F16FromFloat(values[i]);
      break;
    case DType::kI8: {
      float largest = 0;
      for (int64_t i = 0; i < dim; ++i) largest = std::max(largest, std::abs(values[i]));
      scales[index] = largest / 127.0f;
      const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
      int8_t* out = static_cast<int8_t*>(base) + index * dim;
      for (int64_t i = 0; i < dim; ++i) out[i] = static_cast<int8_t>(std::nearbyintf(values[i] * inverse));
      break;
    }
    default:
      for (int64_t i = 0; i < dim; ++i) static_cast<uint16_t*>(base)[index * dim + i] = Bf16FromFloat(values[i]);
  }
}

inline void LoadKvVector(const KvLayer& kv, const void* base, const float* scales, int64_t index, float* values) {
  const int64_t dim = kv.head_dim;
  const int64_t at = index * dim;
  switch (kv.dtype) {
    case DType::kF32:
      std::copy_n(static_cast<const float*>(base) + at, dim, values);
      break;
    case DType::kF16:
      for (int64_t i = 0; i < dim; ++i) values[i] = FloatFromF16(static_cast<const uint16_t*>(base)[at + i]);
      break;
    case DType::kI8:
      for (int64_t i = 0; i < dim; ++i) {
        values[i] = static_cast<float>(static_cast<const int8_t*>(base)[at + i]) * scales[index];
      }
      break;
    default:
      for (int64_t i = 0; i < dim; ++i) values[i] = FloatFromBf16(static_cast<const uint16_t*>(base)[at + i]);
  }
}

}  // namespace millrace::cpu
