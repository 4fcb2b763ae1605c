// SPDX-License-Identifier: Apache-2.0
// Paged attention: decode as bytes of KV read per second, prefill as arithmetic per second (causal half only).
// Pages scattered, caches not flushed (a decode context larger than them flushes itself).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/device.h"
#include "kernels/ops.h"

namespace millrace {
namespace {

constexpr int kHeads = 32, kKvHeads = 8, kHeadDim = 64, kPageTokens = 16;  // Llama-3.2-1B's

void Measure(benchmark::State& state, CpuPath path, DType dtype, int64_t num_sequences, int64_t context, int64_t rows) {
  // The last argument; 0: all cores. With one thread the CPU column is the whole work, whatever else runs here.
  auto device = MakeCpuDevice({.num_threads = static_cast<int>(state.range(4)), .path = path});
  if (!device.ok()) return state.SkipWithError(std::string(device.status().message()).c_str());
  const int64_t pages_each = (context + rows + kPageTokens - 1) / kPageTokens;
  const int64_t num_pages = pages_each * num_sequences;
  const size_t vectors = static_cast<size_t>(num_pages) * kKvHeads * kPageTokens;
  // A small pattern that is a tame number in every type.
  std::vector<uint8_t> keys(vectors * kHeadDim * DTypeBytes(dtype)), values(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = values[i] = static_cast<uint8_t>(0x3c + (i * 7 % 3));
  std::vector<float> scales(vectors, 0.01f);
  std::vector<int32_t> pages(static_cast<size_t>(num_pages));
  std::iota(pages.begin(), pages.end(), 0);
  std::shuffle(pages.begin(), pages.end(), std::mt19937(1));
  std::vector<AttentionSequence> sequences;
  for (int64_t s = 0; s < num_sequences; ++s) {
    sequences.push_back({.first_row = static_cast<int32_t>(s * rows),
                         .num_rows = static_cast<int32_t>(rows),
                         .context_tokens = static_cast<int32_t>(context),
                         .pages = pages.data() + s * pages_each});
  }
  const int64_t width = kHeads * kHeadDim;
  std::vector<float> q(static_cast<size_t>(num_sequences * rows * width), 0.5f), out(q.size());
  const AttentionArgs args{.q = {.data = q.data(), .rows = num_sequences * rows, .cols = width, .stride = width},
                           .num_heads = kHeads,
                           .kv = {.keys = keys.data(),
                                  .values = values.data(),
                                  .key_scales = scales.data(),
                                  .value_scales = scales.data(),
                                  .dtype = dtype,
                                  .num_pages = num_pages,
                                  .page_tokens = kPageTokens,
                                  .num_kv_heads = kKvHeads,
                                  .head_dim = kHeadDim},
                           .sequences = sequences,
                           .scale = 0.125f,
                           .out = {.data = out.data(), .rows = num_sequences * rows, .cols = width, .stride = width}};
  for (auto _ : state) (*device)->ops().Attention(args);
  const double seen = static_cast<double>(rows) * (static_cast<double>(context) + 0.5 * static_cast<double>(rows + 1));
  const double bytes = static_cast<double>(num_sequences) * static_cast<double>(context + rows) * 2 * kKvHeads *
                       (kHeadDim * static_cast<double>(DTypeBytes(dtype)) + (dtype == DType::kI8 ? 4 : 0));
  using benchmark::Counter;
  state.counters["GB/s"] = Counter(bytes * 1e-9, Counter::kIsIterationInvariantRate);
  state.counters["GFLOP/s"] =
      Counter(4e-9 * static_cast<double>(num_sequences) * seen * kHeads * kHeadDim, Counter::kIsIterationInvariantRate);
}

constexpr CpuPath kPaths[] = {CpuPath::kReference, CpuPath::kAvx2, CpuPath::kAvx512};
constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kI8};

void Decode(benchmark::State& state) {
  Measure(state, kPaths[state.range(0)], kTypes[state.range(1)], state.range(2), state.range(3), 1);
}
void Prefill(benchmark::State& state) {
  Measure(state, kPaths[state.range(0)], kTypes[state.range(1)], 1, state.range(2), state.range(3));
}

BENCHMARK(Decode)
    ->ArgNames({"path", "kv", "sequences", "context", "threads"})
    ->ArgsProduct({{1, 2}, {2, 3}, {1, 8, 32}, {128, 1024, 8192}, {1, 0}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(Prefill)
    ->ArgNames({"path", "kv", "context", "rows", "threads"})
    ->Args({0, 2, 0, 128, 1})
    ->ArgsProduct({{1, 2}, {0, 2, 3}, {0, 2048}, {128, 512, 2048}, {1, 0}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace millrace

BENCHMARK_MAIN();
