// SPDX-License-Identifier: Apache-2.0
#pragma once
// Timing of launches on a GPU for the benches of this folder, which nvcc and a C++ compiler can build alone. A bench
// prints JSON lines: what, shape, microseconds (median and spread of the runs), GB/s of the bytes that must move and
// their share of the copy bandwidth measured in the same run. The L2 cache keeps what it can of small data.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace millrace::cuda_bench {

constexpr int kRuns = 30;
constexpr int kWarmUps = 5;

inline void Require(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

// Ends the program with one line where there is no GPU.
inline void RequireGpu(const char* bench) {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0) return;
  std::fprintf(stderr, "%s: there is no NVIDIA GPU here\n", bench);
  std::exit(2);
}

struct Timing {
  double median_us = 0;
  double spread_us = 0;  // from the tenth to the ninetieth percentile
};

template <typename Work>
Timing Measure(const Work& work) {
  cudaEvent_t begin, end;
  Require(cudaEventCreate(&begin), "cudaEventCreate");
  Require(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<double> times;
  for (int i = 0; i < kWarmUps + kRuns; ++i) {
    Require(cudaEventRecord(begin, nullptr), "cudaEventRecord");
    Require(work(), "a launch");
    Require(cudaEventRecord(end, nullptr), "cudaEventRecord");
    Require(cudaEventSynchronize(end), "the work");
    float milliseconds = 0;
    Require(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime");
    if (i >= kWarmUps) times.push_back(1000.0 * milliseconds);
  }
  Require(cudaEventDestroy(begin), "cudaEventDestroy");
  Require(cudaEventDestroy(end), "cudaEventDestroy");
  std::sort(times.begin(), times.end());
  return {times[kRuns / 2], times[kRuns - 1 - kRuns / 10] - times[kRuns / 10]};
}

template <typename T>
T* Allocate(size_t count) {
  void* memory = nullptr;
  Require(cudaMalloc(&memory, count * sizeof(T)), "cudaMalloc");
  Require(cudaMemset(memory, 0, count * sizeof(T)), "cudaMemset");
  return static_cast<T*>(memory);
}

// Bytes read and written per second by a copy far larger than any cache.
inline double MeasureCopyBandwidth() {
  constexpr size_t kBytes = size_t{1} << 30;
  unsigned char* from = Allocate<unsigned char>(kBytes);
  unsigned char* to = Allocate<unsigned char>(kBytes);
  const Timing timing = Measure([&] { return cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice, nullptr); });
  Require(cudaFree(from), "cudaFree");
  Require(cudaFree(to), "cudaFree");
  return 2.0 * static_cast<double>(kBytes) / (timing.median_us * 1e-6);
}

inline void Report(const char* what, const char* shape, const Timing& timing, double num_bytes, double bandwidth) {
  const double rate = num_bytes / (timing.median_us * 1e-6);
  std::printf(
      "{\"what\": \"%s\", \"shape\": \"%s\", \"us\": %.2f, \"spread_us\": %.2f, \"GB/s\": %.1f, "
      "\"of_copy_bandwidth\": %.3f}\n",
      what, shape, timing.median_us, timing.spread_us, rate / 1e9, rate / bandwidth);
  std::fflush(stdout);
}

}  // namespace millrace::cuda_bench
