// SPDX-License-Identifier: Apache-2.0
#include "engine/load/quantize_rows.h"

#include <bit>
#include <initializer_list>

#include "kernels/check.h"

namespace millrace {
namespace {

constexpr int kLanes = 8;  // independent sums, so that the compiler may use vectors
constexpr float kTiny = 1e-30f;
constexpr int64_t kMaxGroup = 128;

// To nearest, ties to even, for magnitudes below 2^22: adding 1.5 * 2^23 leaves no fraction bits.
inline float Round(float x) {
  constexpr float kMagic = 12582912.0f;
  return (x + kMagic) - kMagic;
}

inline float RoundInt4(float x) {
  const float rounded = Round(x);
  const float low = rounded < -8.0f ? -8.0f : rounded;
  return low > 7.0f ? 7.0f : low;
}

float LargestMagnitude(const float* values, int64_t count) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float magnitude = __builtin_fabsf(values[i + lane]);
      lanes[lane] = magnitude > lanes[lane] ? magnitude : lanes[lane];
    }
  }
  float largest = 0;
  for (; i < count; ++i) largest = __builtin_fabsf(values[i]) > largest ? __builtin_fabsf(values[i]) : largest;
  for (const float lane : lanes) largest = lane > largest ? lane : largest;
  return largest;
}

struct Int4Fit {
  float gain = 0;   // how much of sum(w w) the quantised group explains
  float scale = 0;  // best for these nibbles
};

Int4Fit FitInt4(const float* values, int64_t count, float inverse) {
  float wq[kLanes] = {}, qq[kLanes] = {};
  for (int64_t i = 0; i < count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float q = RoundInt4(values[i + lane] * inverse);
      wq[lane] += values[i + lane] * q;
      qq[lane] += q * q;
    }
  }
  float sum_wq = 0, sum_qq = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    sum_wq += wq[lane];
    sum_qq += qq[lane];
  }
  if (sum_qq == 0) return {};
  return {.gain = sum_wq * (sum_wq / sum_qq), .scale = sum_wq / sum_qq};
}

}  // namespace

bool AreFinite(const float* values, int64_t count) {
  uint32_t num_bad = 0;
  for (int64_t i = 0; i < count; ++i) {
    num_bad |= static_cast<uint32_t>((std::bit_cast<uint32_t>(values[i]) & 0x7f800000u) == 0x7f800000u);
  }
  return num_bad == 0;
}

float QuantizeInt8(const float* values, int64_t count, int8_t* out) {
  const float largest = LargestMagnitude(values, count);
  const float inverse = largest > kTiny ? 127.0f / largest : 0.0f;
  // |values * inverse| exceeds 127 by rounding errors only, so no clamp is needed before the conversion.
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<int8_t>(static_cast<int32_t>(Round(values[i] * inverse)));
  return largest > kTiny ? largest / 127.0f : 0.0f;
}

float QuantizeInt4(const float* values, int64_t count, uint8_t* out) {
  MILLRACE_CHECK(count > 0 && count <= kMaxGroup && count % 32 == 0, "an int4 group has 32, 64, 96 or 128 values");
  const float magnitude = LargestMagnitude(values, count);
  float inverse = 0;
  Int4Fit best;
  if (magnitude > kTiny) {
    float largest = magnitude;  // with the sign of the value that has it: -8 reaches further than 7
    for (int64_t i = 0; i < count; ++i) {
      if (values[i] == -magnitude) largest = -magnitude;
    }
    for (const float divisor : {-8.0f, -7.5f, -7.0f, -8.5f, -9.0f, 7.0f, 7.5f, 8.0f}) {
      const Int4Fit fit = FitInt4(values, count, divisor / largest);
      if (fit.gain > best.gain) {
        best = fit;
        inverse = divisor / largest;
      }
    }
  }
  int32_t nibbles[kMaxGroup];
  for (int64_t i = 0; i < count; ++i) nibbles[i] = static_cast<int32_t>(RoundInt4(values[i] * inverse)) + 8;
  for (int64_t i = 0; i < count; i += 2) out[i / 2] = static_cast<uint8_t>(nibbles[i] | nibbles[i + 1] << 4);
  return best.scale;
}

}  // namespace millrace
