// SPDX-License-Identifier: Apache-2.0
#pragma once
// The loops behind roofline.h on x86-64: reading memory in streams, and the dot-product instructions with everything in
// registers. Benches only.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace millrace::bench {

__attribute__((target("avx512f"))) inline int64_t ReadStream512(const uint8_t* data, size_t num_bytes) {
  __m512i sums[8];
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  for (size_t i = 0; i + 512 <= num_bytes; i += 512) {
    for (int lane = 0; lane < 8; ++lane) {
      _mm_prefetch(reinterpret_cast<const char*>(data + i + 64 * lane + 4096), _MM_HINT_T0);
      sums[lane] = _mm512_add_epi64(sums[lane], _mm512_load_si512(data + i + 64 * lane));
    }
  }
  for (int lane = 1; lane < 8; ++lane) sums[0] = _mm512_add_epi64(sums[0], sums[lane]);
  return _mm512_reduce_add_epi64(sums[0]);
}

__attribute__((target("avx2"))) inline int64_t ReadStream256(const uint8_t* data, size_t num_bytes) {
  __m256i sums[8];
  for (__m256i& sum : sums) sum = _mm256_setzero_si256();
  for (size_t i = 0; i + 256 <= num_bytes; i += 256) {
    for (int lane = 0; lane < 4; ++lane) {
      _mm_prefetch(reinterpret_cast<const char*>(data + i + 64 * lane + 4096), _MM_HINT_T0);
    }
    for (int lane = 0; lane < 8; ++lane) {
      const __m256i value = _mm256_load_si256(reinterpret_cast<const __m256i*>(data + i + 32 * lane));
      sums[lane] = _mm256_add_epi64(sums[lane], value);
    }
  }
  for (int lane = 1; lane < 8; ++lane) sums[0] = _mm256_add_epi64(sums[0], sums[lane]);
  return _mm256_extract_epi64(sums[0], 0) + _mm256_extract_epi64(sums[0], 1) + _mm256_extract_epi64(sums[0], 2) +
         _mm256_extract_epi64(sums[0], 3);
}

// Twenty chains hide the latency; the asm keeps them in registers and the loop from being folded.
#define MILLRACE_PEAK_LOOP(Type, step)                        \
  Type sums[20] = {};                                         \
  for (int64_t i = 0; i < iterations; ++i) {                  \
    _Pragma("unroll") for (int lane = 0; lane < 20; ++lane) { \
      sums[lane] = step;                                      \
      asm volatile("" : "+v"(sums[lane]));                    \
    }                                                         \
  }                                                           \
  for (int lane = 0; lane < 20; ++lane) asm volatile("" : : "v"(sums[lane]))

__attribute__((target("avx512f,avx512bf16"))) inline void PeakBf16(int64_t iterations) {
  const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  MILLRACE_PEAK_LOOP(__m512, _mm512_dpbf16_ps(sums[lane], a, a));
}

__attribute__((target("avx512f,avx512vnni"))) inline void PeakInt8(int64_t iterations) {
  const __m512i a = _mm512_set1_epi32(0x01010101);
  MILLRACE_PEAK_LOOP(__m512i, _mm512_dpbusd_epi32(sums[lane], a, a));
}

__attribute__((target("avx512f"))) inline void PeakF32(int64_t iterations) {
  const __m512 a = _mm512_set1_ps(1.0f);
  MILLRACE_PEAK_LOOP(__m512, _mm512_fmadd_ps(a, a, sums[lane]));
}

#undef MILLRACE_PEAK_LOOP

// As above with AVX2's sixteen registers: twelve chains and an operand that the compiler cannot take out of the loop.
constexpr int kAvx2Chains = 12;
#define MILLRACE_PEAK_LOOP_AVX2(Type, a, step)                         \
  Type sums[kAvx2Chains] = {};                                         \
  for (int64_t i = 0; i < iterations; ++i) {                           \
    _Pragma("unroll") for (int lane = 0; lane < kAvx2Chains; ++lane) { \
      asm volatile("" : "+x"(a));                                      \
      sums[lane] = step;                                               \
      asm volatile("" : "+x"(sums[lane]));                             \
    }                                                                  \
  }                                                                    \
  for (int lane = 0; lane < kAvx2Chains; ++lane) asm volatile("" : : "x"(sums[lane]))

__attribute__((target("avx2,fma"))) inline void PeakF32Avx2(int64_t iterations) {
  __m256 a = _mm256_set1_ps(1.0f);
  MILLRACE_PEAK_LOOP_AVX2(__m256, a, _mm256_fmadd_ps(a, a, sums[lane]));
}

// int8 by int8 needs 16-bit operands to be exact; 4 by 8 bits is exact in 16-bit sums.
__attribute__((target("avx2"))) inline void PeakInt8Avx2(int64_t iterations) {
  __m256i a = _mm256_set1_epi16(1);
  MILLRACE_PEAK_LOOP_AVX2(__m256i, a, _mm256_add_epi32(sums[lane], _mm256_madd_epi16(a, a)));
}

__attribute__((target("avx2"))) inline void PeakInt4Avx2(int64_t iterations) {
  __m256i a = _mm256_set1_epi8(1);
  MILLRACE_PEAK_LOOP_AVX2(__m256i, a, _mm256_add_epi16(sums[lane], _mm256_maddubs_epi16(a, a)));
}

#undef MILLRACE_PEAK_LOOP_AVX2

}  // namespace millrace::bench
