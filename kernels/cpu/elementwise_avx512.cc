// SPDX-License-Identifier: Apache-2.0
// Row-wise ops with AVX-512; limited by cache bandwidth.
#include "kernels/cpu/elementwise_avx512.h"

#include <cmath>

#include "kernels/cpu/vector_math_avx512.h"

namespace millrace::cpu {
namespace {

__mmask16 TailMask(int64_t left) { return left >= 16 ? __mmask16{0xffff} : static_cast<__mmask16>((1u << left) - 1); }

}  // namespace

void RmsNormRowAvx512(const float* x, const float* weight, float eps, int64_t cols, float* out) {
  __m512 squares = _mm512_setzero_ps();
  for (int64_t c = 0; c < cols; c += 16) {
    const __m512 values = _mm512_maskz_loadu_ps(TailMask(cols - c), x + c);
    squares = _mm512_fmadd_ps(values, values, squares);
  }
  const float scale = 1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / static_cast<float>(cols) + eps);
  const __m512 factor = _mm512_set1_ps(scale);
  for (int64_t c = 0; c < cols; c += 16) {
    const __mmask16 mask = TailMask(cols - c);
    const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + c), factor);
    _mm512_mask_storeu_ps(out + c, mask, _mm512_mul_ps(scaled, _mm512_maskz_loadu_ps(mask, weight + c)));
  }
}

void SwiGluRowAvx512(const float* gate, const float* up, int64_t cols, float* out) {
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 lowest = _mm512_set1_ps(-128.0f);  // already exp's infinity, which makes the quotient zero
  for (int64_t c = 0; c < cols; c += 16) {
    const __mmask16 mask = TailMask(cols - c);
    const __m512 g = _mm512_maskz_loadu_ps(mask, gate + c);
    const __m512 e = Exp(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_max_ps(g, lowest)));
    const __m512 silu = _mm512_div_ps(g, _mm512_add_ps(one, e));
    _mm512_mask_storeu_ps(out + c, mask, _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(mask, up + c)));
  }
}

}  // namespace millrace::cpu
