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
#include "benches/kernels/roofline_x86.h"
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
