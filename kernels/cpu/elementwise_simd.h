// SPDX-License-Identifier: Apache-2.0
#pragma once
// The row-wise ops, written once over simd.h and compiled per instruction set. Included by elementwise_avx512.cc and
// elementwise_avx2.cc only. Limited by cache bandwidth.
#include <cstdint>

#include "kernels/cpu/simd.h"

namespace millrace::cpu::MILLRACE_SIMD {

inline void RmsNormRow(const float* x, const float* weight, float eps, int64_t cols, float* out) {
  // Sixteen chains of sums, or twice eight: the same number for either width.
  Vec squares[16 / kWidth];
  for (Vec& square : squares) square = Zero();
  for (int64_t c = 0; c < cols; c += 16) {
#pragma unroll
    for (int v = 0; v < 16 / kWidth; ++v) {
      const int64_t left = cols - c - v * kWidth;
      if (left <= 0) break;
      const Vec value = LoadPart(x + c + v * kWidth, left);
      squares[v] = Fma(value, value, squares[v]);
    }
  }
  const float sum = Sum(kWidth == 16 ? squares[0] : Add(squares[0], squares[16 / kWidth - 1]));
  const Vec scale = Set(1.0f / __builtin_sqrtf(sum / static_cast<float>(cols) + eps));
  for (int64_t c = 0; c < cols; c += kWidth) {
    const int64_t left = cols - c;
    StorePart(out + c, Mul(Mul(LoadPart(x + c, left), scale), LoadPart(weight + c, left)), left);
  }
}

// gate * sigmoid(gate) * up, the sigmoid by e^-|gate| so that nothing overflows: 1 / (1 + e) or, below zero, e / (1 +
// e).
inline void SwiGluRow(const float* gate, const float* up, int64_t cols, float* out) {
  const Vec one = Set(1.0f);
  for (int64_t c = 0; c < cols; c += kWidth) {
    const int64_t left = cols - c;
    const Vec g = LoadPart(gate + c, left);
    const Vec e = ExpSubnormal(Min(g, Zero() - g));
    const Vec silu = Mul(g, Select(IsLess(g, Zero()), e, one)) / Add(one, e);
    StorePart(out + c, Mul(silu, LoadPart(up + c, left)), left);
  }
}

}  // namespace millrace::cpu::MILLRACE_SIMD
