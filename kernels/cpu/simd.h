// SPDX-License-Identifier: Apache-2.0
#pragma once
// A float vector of the widest kind the including file is compiled for, and the few operations the row-wise kernels
// need. Only *_avx512.cc and *_avx2.cc (and the *_simd.h they share) include this. Everything lives in a namespace
// named after the instruction set, so no function here can stand in for another file's. Stateless; any thread.
#include <immintrin.h>

#include <cstdint>

#if defined(__AVX512F__)
#define MILLRACE_SIMD avx512
#else
#define MILLRACE_SIMD avx2
#endif

namespace millrace::cpu::MILLRACE_SIMD {

#if defined(__AVX512F__)

using Vec = __m512;
using Mask = __mmask16;
constexpr int kWidth = 16;

inline Vec Zero() { return _mm512_setzero_ps(); }
inline Vec Set(float value) { return _mm512_set1_ps(value); }
inline Vec Load(const float* from) { return _mm512_loadu_ps(from); }
inline void Store(float* to, Vec value) { _mm512_storeu_ps(to, value); }
inline Mask FirstLanes(int64_t count) {
  return count >= kWidth ? Mask{0xffff} : static_cast<Mask>((1u << static_cast<unsigned>(count)) - 1u);
}
inline Vec LoadPart(const float* from, int64_t count) { return _mm512_maskz_loadu_ps(FirstLanes(count), from); }
inline void StorePart(float* to, Vec value, int64_t count) { _mm512_mask_storeu_ps(to, FirstLanes(count), value); }
// The second operand when either is not a number.
inline Vec Max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec Fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec FmaNegated(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a, b, c); }
inline Vec RoundNearest(Vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline Vec PowerOfTwo(Vec exponent) { return _mm512_scalef_ps(_mm512_set1_ps(1.0f), exponent); }
inline Mask IsLess(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
inline Mask IsAtLeast(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
inline Mask IsNotFiniteAbove(Vec a, Vec limit) { return _mm512_cmp_ps_mask(a, limit, _CMP_NLE_UQ); }  // > or NaN
inline Mask IsEqual(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
inline Mask And(Mask a, Mask b) { return static_cast<Mask>(a & b); }
inline uint32_t Bits(Mask mask) { return mask; }
inline Mask FromBits(uint32_t bits) { return static_cast<Mask>(bits); }
inline Vec Min(Vec a, Vec b) { return _mm512_min_ps(a, b); }  // the second when either is not a number
inline Vec Select(Mask mask, Vec yes, Vec no) { return _mm512_mask_blend_ps(mask, no, yes); }
inline Vec LoadBf16(const uint16_t* from) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline Vec LoadF16(const uint16_t* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
inline Vec LoadI8(const int8_t* from) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
inline Vec Iota() {
  return _mm512_set_ps(15.0f, 14.0f, 13.0f, 12.0f, 11.0f, 10.0f, 9.0f, 8.0f, 7.0f, 6.0f, 5.0f, 4.0f, 3.0f, 2.0f, 1.0f,
                       0.0f);
}
// Rows become columns, in registers.
inline void Transpose(Vec* rows) {
  Vec pairs[16];
#pragma unroll
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
  // Afterwards the 128-bit part p of rows[4 * g + c] holds column 4 * p + c of rows 4 * g to 4 * g + 3.
#pragma unroll
  for (int i = 0; i < 16; i += 4) {
    const __m512d a = _mm512_castps_pd(pairs[i]), b = _mm512_castps_pd(pairs[i + 1]);
    const __m512d c = _mm512_castps_pd(pairs[i + 2]), d = _mm512_castps_pd(pairs[i + 3]);
    rows[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    rows[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    rows[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    rows[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
  }
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const Vec even_low = _mm512_shuffle_f32x4(rows[c], rows[4 + c], 0x88);
    const Vec even_high = _mm512_shuffle_f32x4(rows[8 + c], rows[12 + c], 0x88);
    const Vec odd_low = _mm512_shuffle_f32x4(rows[c], rows[4 + c], 0xdd);
    const Vec odd_high = _mm512_shuffle_f32x4(rows[8 + c], rows[12 + c], 0xdd);
    rows[c] = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
    rows[8 + c] = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
    rows[4 + c] = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
    rows[12 + c] = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
  }
}

#else

using Vec = __m256;
using Mask = __m256;
constexpr int kWidth = 8;

inline Vec Zero() { return _mm256_setzero_ps(); }
inline Vec Set(float value) { return _mm256_set1_ps(value); }
inline Vec Load(const float* from) { return _mm256_loadu_ps(from); }
inline void Store(float* to, Vec value) { _mm256_storeu_ps(to, value); }
inline Vec Iota() { return _mm256_set_ps(7.0f, 6.0f, 5.0f, 4.0f, 3.0f, 2.0f, 1.0f, 0.0f); }
inline Mask FirstLanes(int64_t count) {
  return _mm256_cmp_ps(Iota(), _mm256_set1_ps(static_cast<float>(count)), _CMP_LT_OQ);
}
inline Vec LoadPart(const float* from, int64_t count) {
  return _mm256_maskload_ps(from, _mm256_castps_si256(FirstLanes(count)));
}
inline void StorePart(float* to, Vec value, int64_t count) {
  _mm256_maskstore_ps(to, _mm256_castps_si256(FirstLanes(count)), value);
}
inline Vec Max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
inline Vec Fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec FmaNegated(Vec a, Vec b, Vec c) { return _mm256_fnmadd_ps(a, b, c); }
inline Vec RoundNearest(Vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// For integer exponents from -126 to 127.
inline Vec PowerOfTwo(Vec exponent) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(exponent), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
inline Mask IsLess(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
inline Mask IsAtLeast(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_GE_OQ); }
inline Mask IsNotFiniteAbove(Vec a, Vec limit) { return _mm256_cmp_ps(a, limit, _CMP_NLE_UQ); }
inline Mask IsEqual(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
inline Mask And(Mask a, Mask b) { return _mm256_and_ps(a, b); }
inline uint32_t Bits(Mask mask) { return static_cast<uint32_t>(_mm256_movemask_ps(mask)); }
inline Mask FromBits(uint32_t bits) {
  const __m256i lanes = _mm256_set_epi32(128, 64, 32, 16, 8, 4, 2, 1);
  const __m256i chosen = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), lanes);
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(chosen, lanes));
}
inline Vec Min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
inline Vec Select(Mask mask, Vec yes, Vec no) { return _mm256_blendv_ps(no, yes, mask); }
inline Vec LoadBf16(const uint16_t* from) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline Vec LoadF16(const uint16_t* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline Vec LoadI8(const int8_t* from) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
}
inline void Transpose(Vec* rows) {
  Vec pairs[8], quads[8];
#pragma unroll
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
#pragma unroll
  for (int i = 0; i < 8; i += 4) {
    quads[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    quads[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
    quads[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    quads[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
  }
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    rows[c] = _mm256_permute2f128_ps(quads[c], quads[4 + c], 0x20);
    rows[4 + c] = _mm256_permute2f128_ps(quads[c], quads[4 + c], 0x31);
  }
}

#endif

inline Vec Add(Vec a, Vec b) { return a + b; }
inline Vec Mul(Vec a, Vec b) { return a * b; }

// `count` (< kWidth) elements of 16 or 8 bits copied beside zeros, so that a full load stays inside memory we own.
template <typename T>
inline void CopyPart(T* to, const T* from, int64_t count) {
  for (int i = 0; i < kWidth; ++i) to[i] = i < count ? from[i] : T{0};
}

// Lane 0.
inline float First(Vec value) {
#if defined(__AVX512F__)
  return _mm512_cvtss_f32(value);
#else
  return _mm256_cvtss_f32(value);
#endif
}

// The lanes' sum and maximum, halves added to halves: one fixed order.
#if defined(__AVX512F__)
inline __m256 UpperHalf(Vec value) { return _mm512_extractf32x8_ps(value, 1); }
#endif
inline float Sum(Vec value) {
#if defined(__AVX512F__)
  const __m256 eight = _mm512_castps512_ps256(value) + UpperHalf(value);
#else
  const __m256 eight = value;
#endif
  __m128 four = _mm256_castps256_ps128(eight) + _mm256_extractf128_ps(eight, 1);
  four += _mm_movehl_ps(four, four);
  four += _mm_movehdup_ps(four);
  return _mm_cvtss_f32(four);
}
inline float Largest(Vec value) {
#if defined(__AVX512F__)
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(value), UpperHalf(value));
#else
  const __m256 eight = value;
#endif
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  four = _mm_max_ps(four, _mm_movehdup_ps(four));
  return _mm_cvtss_f32(four);
}

// e^f for |f| <= ln(2)/2 by its Taylor polynomial of degree 7 (the rest is below 6e-9), times 2^n.
inline Vec ExpReduced(Vec f, Vec n) {
  Vec p = Set(1.0f / 5040.0f);
  p = Fma(p, f, Set(1.0f / 720.0f));
  p = Fma(p, f, Set(1.0f / 120.0f));
  p = Fma(p, f, Set(1.0f / 24.0f));
  p = Fma(p, f, Set(1.0f / 6.0f));
  p = Fma(p, f, Set(0.5f));
  p = Fma(p, f, Set(1.0f));
  p = Fma(p, f, Set(1.0f));
  return Mul(p, PowerOfTwo(n));
}

// e^x, relative error below 2e-7 for x in [-87, 88]; zero below; clamped above to e^88; exactly 1 at 0; NaN stays.
inline Vec Exp(Vec x) {
  const Mask is_tiny = IsLess(x, Set(-87.0f));
  // The limit comes first: Max and its mirror give the second operand back when that is not a number.
  x = Max(Set(-87.0f), x);
  x = Min(Set(88.0f), x);
  const Vec n = RoundNearest(Mul(x, Set(1.44269504f)));
  // ln(2) in two parts; n times the first is exact.
  Vec f = FmaNegated(n, Set(0.693359375f), x);
  f = FmaNegated(n, Set(-2.12194440e-4f), f);
  return Select(is_tiny, Zero(), ExpReduced(f, n));
}

// e^x for x <= 0 down through the subnormal numbers, zero below them; NaN stays. For results that are multiplied up
// again; Exp is cheaper.
inline Vec ExpSubnormal(Vec x) {
  const Mask is_zero = IsLess(x, Set(-104.0f));
  x = Max(Set(-104.0f), x);
  const Vec n = RoundNearest(Mul(x, Set(1.44269504f)));
  Vec f = FmaNegated(n, Set(0.693359375f), x);
  f = FmaNegated(n, Set(-2.12194440e-4f), f);
  const Vec half = RoundNearest(Mul(n, Set(0.5f)));  // 2^n in two factors, both normal
  return Select(is_zero, Zero(), Mul(ExpReduced(f, half), PowerOfTwo(n - half)));
}

}  // namespace millrace::cpu::MILLRACE_SIMD
