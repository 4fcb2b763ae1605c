// SPDX-License-Identifier: Apache-2.0
#pragma once
// Vector arithmetic shared by the *_avx512.cc files, and by nothing else: everything here has internal linkage, so
// no wide instruction can leak into code that runs on other processors. Stateless, any thread.
#include <immintrin.h>

#include <cstdint>

namespace millrace::cpu {
namespace {

// exp(x) to about 2 ulp for x <= 88: x = n ln2 + r with |r| <= ln2 / 2, e^r by its Taylor polynomial of degree 6
// (error below 2e-8), scaled by 2^n. exp(0) is exactly 1, exp(-inf) exactly 0.
[[maybe_unused]] inline __m512 Exp(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.442695041f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.0f / 720.0f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  const __mmask16 is_normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-150.0f), _CMP_GT_OQ);
  return _mm512_maskz_scalef_ps(is_normal, p, n);
}

[[maybe_unused]] inline __m512 LoadBf16(const uint16_t* bits) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bits));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

[[maybe_unused]] inline __m512 LoadF16(const uint16_t* bits) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bits)));
}

[[maybe_unused]] inline __m512 LoadI8(const int8_t* values) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values))));
}

// rows[i][j] becomes rows[j][i].
[[maybe_unused]] inline void Transpose16x16(__m512 rows[16]) {
  __m512 a[16], b[16];
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    a[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    const __m512d lo0 = _mm512_castps_pd(a[i]), lo1 = _mm512_castps_pd(a[i + 2]);
    const __m512d hi0 = _mm512_castps_pd(a[i + 1]), hi1 = _mm512_castps_pd(a[i + 3]);
    b[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(lo0, lo1));
    b[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(lo0, lo1));
    b[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(hi0, hi1));
    b[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(hi0, hi1));
  }
  // b[4g + c] holds column 4q + c of rows 4g..4g+3 in its 128-bit lane q.
  for (int c = 0; c < 4; ++c) {
    const __m512 low = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x88),
                 high = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x88);
    const __m512 low2 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xdd),
                 high2 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xdd);
    rows[c] = _mm512_shuffle_f32x4(low, high, 0x88);
    rows[8 + c] = _mm512_shuffle_f32x4(low, high, 0xdd);
    rows[4 + c] = _mm512_shuffle_f32x4(low2, high2, 0x88);
    rows[12 + c] = _mm512_shuffle_f32x4(low2, high2, 0xdd);
  }
}

}  // namespace
}  // namespace millrace::cpu
