// SPDX-License-Identifier: Apache-2.0
#pragma once
// The limits of this machine, measured: read bandwidth of memory and the peak rate of the dot-product instructions
// with everything in registers. Best of several short runs, because others may use the machine. Benches only.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <utility>
#include <vector>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/page_buffer.h"
#include "kernels/cpu/thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace millrace::bench {

struct Roofline {
  double read_gb_per_s = 0;     // all threads, 1e9 bytes
  double bf16_gflop_per_s = 0;  // multiply and add count as two; 0: no such instruction
  double int8_gop_per_s = 0;
  double int4_gop_per_s = 0;  // of 4-bit by 8-bit products: without VNNI they fit a wider instruction than int8's
  double f32_gflop_per_s = 0;
  double dense_gflop_per_s() const { return bf16_gflop_per_s > 0 ? bf16_gflop_per_s : f32_gflop_per_s; }
};

inline double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Best time of one call of `body` among `num_runs`.
template <typename Body>
double BestSeconds(int num_runs, Body body) {
  double best = 1e30;
  for (int run = 0; run < num_runs; ++run) {
    const auto start = std::chrono::steady_clock::now();
    body();
    best = std::min(best, SecondsSince(start));
  }
  return best;
}

#if defined(__x86_64__)

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

inline double PeakRate(cpu::ThreadPool& pool, void (*loop)(int64_t), double ops_per_iteration) {
  constexpr int64_t kIterations = 1'000'000;
  const double seconds = BestSeconds(7, [&] { pool.Run([&](int) { loop(kIterations); }); });
  return pool.num_threads() * kIterations * ops_per_iteration / seconds * 1e-9;
}

#endif  // __x86_64__

inline int64_t ReadStreamPlain(const uint8_t* data, size_t num_bytes) {
  const uint64_t* words = reinterpret_cast<const uint64_t*>(data);
  uint64_t sum = 0;
  for (size_t i = 0; i < num_bytes / 8; ++i) sum += words[i];
  return static_cast<int64_t>(sum);
}

// Memory far beyond any last-level cache, to be read in long streams: what a decode step does.
class ReadProbe {
 public:
  explicit ReadProbe(cpu::ThreadPool& pool) : pool_(pool) {
    auto memory = cpu::PageBuffer::Allocate(kBytes + 8192);
    if (!memory.ok()) return;
    memory_ = *std::move(memory);
    pool_.ParallelFor(kBytes / 4096, [&](int64_t begin, int64_t end, int) {
      std::fill(memory_.data() + begin * 4096, memory_.data() + end * 4096, uint8_t{1});
    });
#if defined(__x86_64__)
    if (cpu::HasCpuPath(CpuPath::kAvx512)) {
      read_ = ReadStream512;
    } else if (cpu::HasCpuPath(CpuPath::kAvx2)) {
      read_ = ReadStream256;
    }
#endif
  }

  // 1e9 bytes per second, all threads together, best of `num_runs`; 0 when there was no memory.
  double Measure(int num_runs) {
    if (memory_.data() == nullptr) return 0;
    std::atomic<int64_t> sink{0};
    const double seconds = BestSeconds(num_runs, [&] {
      pool_.ParallelForChunks(kBytes / kChunkBytes, 1, [&](int64_t begin, int64_t end, int) {
        sink += read_(memory_.data() + begin * kChunkBytes, static_cast<size_t>((end - begin) * kChunkBytes));
      });
    });
    return kBytes / seconds * 1e-9;
  }

 private:
  static constexpr size_t kBytes = size_t{1} << 30;
  static constexpr int64_t kChunkBytes = int64_t{1} << 20;

  cpu::ThreadPool& pool_;
  cpu::PageBuffer memory_;
  int64_t (*read_)(const uint8_t*, size_t) = ReadStreamPlain;
};

inline Roofline MeasureRoofline(cpu::ThreadPool& pool) {
  Roofline roof;
  roof.read_gb_per_s = ReadProbe(pool).Measure(7);
#if defined(__x86_64__)
  if (cpu::HasCpuPath(CpuPath::kAvx512)) {
    roof.bf16_gflop_per_s = PeakRate(pool, PeakBf16, 20 * 64);
    roof.int8_gop_per_s = PeakRate(pool, PeakInt8, 20 * 128);
    roof.int4_gop_per_s = roof.int8_gop_per_s;
    roof.f32_gflop_per_s = PeakRate(pool, PeakF32, 20 * 32);
  } else if (cpu::HasCpuPath(CpuPath::kAvx2)) {
    roof.int8_gop_per_s = PeakRate(pool, PeakInt8Avx2, kAvx2Chains * 32);
    roof.int4_gop_per_s = PeakRate(pool, PeakInt4Avx2, kAvx2Chains * 64);
    roof.f32_gflop_per_s = PeakRate(pool, PeakF32Avx2, kAvx2Chains * 16);
  }
#endif
  return roof;
}

inline void PrintRoofline(const Roofline& roof, int num_threads) {
  std::printf("%d threads: read %.1f GB/s, bf16 %.0f GFLOP/s, int8 %.0f GOP/s, int4 %.0f GOP/s, f32 %.0f GFLOP/s\n",
              num_threads, roof.read_gb_per_s, roof.bf16_gflop_per_s, roof.int8_gop_per_s, roof.int4_gop_per_s,
              roof.f32_gflop_per_s);
}

}  // namespace millrace::bench
