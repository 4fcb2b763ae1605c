// SPDX-License-Identifier: Apache-2.0
#pragma once
// KV memory of one layer for kernel tests: in any dtype, pages scattered, everything that no token owns NaN.
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/kv_layer.h"
#include "tests/cuda/harness.h"

namespace millrace::cuda_test {

inline uint16_t BitsFromFloat(DType dtype, float value) {
  return dtype == DType::kBF16 ? Bf16FromFloat(value) : HalfFromFloat(value);
}
inline float FloatFromBits(DType dtype, uint16_t bits) {
  return dtype == DType::kBF16 ? FloatFromBf16(bits) : FloatFromHalf(bits);
}
// Half the distance between neighbours, relative to a number.
inline double HalfSpacing(DType dtype) { return dtype == DType::kBF16 ? 0x1p-8 : 0x1p-11; }

inline const char* NameOf(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return "bf16";
    case DType::kF16:
      return "f16";
    case DType::kI8:
      return "int8";
    default:
      return "fp8";
  }
}

inline float FloatFromE4m3(uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  if ((bits & 0x7f) == 0x7f) return std::numeric_limits<float>::quiet_NaN();
  const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                        : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return bits & 0x80 ? -magnitude : magnitude;
}

struct KvShape {
  DType dtype = DType::kBF16;
  int num_heads = 8;
  int num_kv_heads = 2;
  int head_dim = 64;
  int page_tokens = 16;
};

class KvMemory {
 public:
  static constexpr uint8_t kUnused = 0xff;  // NaN in every float type; int8 has scales that are

  KvMemory(const KvShape& shape, int num_pages)
      : shape_(shape),
        num_pages_(num_pages),
        num_vectors_(static_cast<size_t>(num_pages) * static_cast<size_t>(shape.num_kv_heads * shape.page_tokens)),
        element_bytes_(DTypeBytes(shape.dtype)),
        keys_(num_vectors_ * static_cast<size_t>(shape.head_dim) * element_bytes_, kUnused),
        values_(keys_),
        key_scales_(num_vectors_, std::numeric_limits<float>::quiet_NaN()),
        value_scales_(key_scales_),
        device_keys_(keys_),
        device_values_(values_),
        device_key_scales_(key_scales_),
        device_value_scales_(value_scales_) {}

  // Token `token` of the sequence `seed` at its place in `pages`: the same numbers wherever that is.
  void Fill(const std::vector<int32_t>& pages, int token, uint32_t seed) {
    for (int head = 0; head < shape_.num_kv_heads; ++head) {
      Random random(seed * 7919u + static_cast<uint32_t>(token * shape_.num_kv_heads + head));
      const size_t vector = VectorOf(pages, token, head);
      key_scales_[vector] = random.Float(0.002f, 0.02f);
      value_scales_[vector] = random.Float(0.002f, 0.02f);
      for (int d = 0; d < shape_.head_dim; ++d) {
        Store(keys_, vector, d, random);
        Store(values_, vector, d, random);
      }
    }
  }
  void Upload() {
    device_keys_.Upload(keys_);
    device_values_.Upload(values_);
    device_key_scales_.Upload(key_scales_);
    device_value_scales_.Upload(value_scales_);
  }
  void Download() {
    keys_ = device_keys_.Download();
    values_ = device_values_.Download();
    key_scales_ = device_key_scales_.Download();
    value_scales_ = device_value_scales_.Download();
  }

  KvLayer layer() {
    const bool has_scales = shape_.dtype == DType::kI8;
    return {.keys = device_keys_.data(),
            .values = device_values_.data(),
            .key_scales = has_scales ? device_key_scales_.data() : nullptr,
            .value_scales = has_scales ? device_value_scales_.data() : nullptr,
            .dtype = shape_.dtype,
            .num_pages = num_pages_,
            .page_tokens = shape_.page_tokens,
            .num_kv_heads = shape_.num_kv_heads,
            .head_dim = shape_.head_dim};
  }
  const KvShape& shape() const { return shape_; }
  size_t VectorOf(const std::vector<int32_t>& pages, int token, int head) const {
    const int page = pages[static_cast<size_t>(token / shape_.page_tokens)];
    return static_cast<size_t>((page * shape_.num_kv_heads + head) * shape_.page_tokens + token % shape_.page_tokens);
  }
  double Key(size_t vector, int d) const { return Load(keys_, key_scales_, vector, d); }
  double Value(size_t vector, int d) const { return Load(values_, value_scales_, vector, d); }
  float key_scale(size_t vector) const { return key_scales_[vector]; }
  float value_scale(size_t vector) const { return value_scales_[vector]; }
  const std::vector<uint8_t>& keys() const { return keys_; }
  const std::vector<uint8_t>& values() const { return values_; }

 private:
  void Store(std::vector<uint8_t>& bytes, size_t vector, int d, Random& random) {
    const size_t at = (vector * static_cast<size_t>(shape_.head_dim) + static_cast<size_t>(d)) * element_bytes_;
    if (element_bytes_ == 2) {
      const uint16_t bits = BitsFromFloat(shape_.dtype, random.Float(-1.5f, 1.5f));
      std::memcpy(&bytes[at], &bits, 2);
    } else if (shape_.dtype == DType::kI8) {
      bytes[at] = static_cast<uint8_t>(random.Int(-127, 127));
    } else {  // fp8 up to 1.875, of either sign
      bytes[at] = static_cast<uint8_t>(random.Int(0, 0x3f) | (random.Int(0, 1) << 7));
    }
  }
  double Load(const std::vector<uint8_t>& bytes, const std::vector<float>& scales, size_t vector, int d) const {
    const size_t at = (vector * static_cast<size_t>(shape_.head_dim) + static_cast<size_t>(d)) * element_bytes_;
    if (shape_.dtype == DType::kI8) return static_cast<double>(static_cast<int8_t>(bytes[at])) * scales[vector];
    if (shape_.dtype == DType::kF8E4M3) return FloatFromE4m3(bytes[at]);
    uint16_t bits;
    std::memcpy(&bits, &bytes[at], 2);
    return FloatFromBits(shape_.dtype, bits);
  }

  const KvShape shape_;
  const int num_pages_;
  const size_t num_vectors_, element_bytes_;
  std::vector<uint8_t> keys_, values_;
  std::vector<float> key_scales_, value_scales_;
  DeviceArray<uint8_t> device_keys_, device_values_;
  DeviceArray<float> device_key_scales_, device_value_scales_;
};

}  // namespace millrace::cuda_test
