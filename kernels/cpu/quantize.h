// SPDX-License-Identifier: Apache-2.0
#pragma once
// Symmetric int8 quantisation of activations: q = round(x * 127 / max|x|), ties to even, x ~ q * scale. Plain; the
// fast paths round the same way. Stateless; any thread.
#include <bit>
#include <cmath>
#include <cstdint>

namespace millrace::cpu {

// Smaller maxima count as zero: 127 / max must stay finite.
constexpr float kMinQuantizedMax = 1e-30f;

struct QuantScale {
  float inverse = 0;  // q = round(x * inverse)
  float scale = 0;    // x ~ q * scale
};

// `max_bits`: the largest bit pattern of |x|; patterns of infinity and NaN exceed all finite ones, so a row that holds
// one gets a NaN scale and the fault stays visible in the output. Internal linkage, because files compiled with wider
// instructions use it too and must not lend their copy to others.
static inline QuantScale QuantScaleFor(uint32_t max_bits) {
  if (max_bits >= 0x7f800000u) return {0.0f, __builtin_nanf("")};
  const float max = __builtin_bit_cast(float, max_bits);
  if (max < kMinQuantizedMax) return {0.0f, 0.0f};
  return {127.0f / max, max / 127.0f};
}

inline float QuantizeInt8(const float* x, int64_t count, int8_t* q) {
  uint32_t max_bits = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu;
    max_bits = bits > max_bits ? bits : max_bits;
  }
  const QuantScale scale = QuantScaleFor(max_bits);
  if (scale.inverse == 0.0f) {
    for (int64_t i = 0; i < count; ++i) q[i] = 0;
    return scale.scale;
  }
  for (int64_t i = 0; i < count; ++i) q[i] = static_cast<int8_t>(std::nearbyintf(x[i] * scale.inverse));
  return scale.scale;
}

}  // namespace millrace::cpu
