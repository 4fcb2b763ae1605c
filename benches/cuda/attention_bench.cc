// SPDX-License-Identifier: Apache-2.0
// Paged attention on a GPU: decode as bytes of KV memory read per second, prefill as arithmetic per second (of the
// causal half only) and its share of what tensor cores do at the highest clock, by each of its kernels; times of one
// layer. Replayed from a CUDA graph that goes round as many layers as it takes to find
// each one's memory outside the L2 cache; pages are scattered.
//
//   attention_bench [decode|prefill]
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "benches/cuda/timing.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/warpgroups.h"

namespace millrace::cuda {
namespace {

using cuda_bench::Allocate;
using cuda_bench::Require;
using cuda_bench::Timing;

constexpr int kPageTokens = 16;
constexpr int kMostLayers = 64;
constexpr double kFewestCacheSizes = 3;  // of KV memory between two readings of the same

struct Freed {
  void operator()(void* memory) const { cudaFree(memory); }
};
template <typename T>
using Memory = std::unique_ptr<T, Freed>;

template <typename T>
Memory<T> Upload(const std::vector<T>& values) {
  Memory<T> memory(Allocate<T>(values.size()));
  Require(cudaMemcpy(memory.get(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  return memory;
}
// A byte that makes a tame number in every type.
Memory<uint8_t> Filled(size_t num_bytes) {
  Memory<uint8_t> memory(Allocate<uint8_t>(num_bytes));
  Require(cudaMemset(memory.get(), 0x3c, num_bytes), "cudaMemset");
  return memory;
}

struct Machine {
  cudaDeviceProp properties = {};
  double copy_bandwidth = 0;  // bytes a second, read and written
  double tensor_peak = 0;     // operations a second on 16-bit numbers; 0: not known, and so are shares of it
  bool has_warpgroups = false;
};

// A data sheet's number: multiprocessors, their operations in a clock, and the highest clock.
double TensorPeak(const cudaDeviceProp& properties) {
  const int version = 10 * properties.major + properties.minor;
  const double in_a_clock = version == 90 ? 4096 : version == 80 ? 2048 : 0;
  int kilohertz = 0;
  Require(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, 0), "asking for the clock");
  return in_a_clock * properties.multiProcessorCount * 1000.0 * kilohertz;
}

struct BenchCase {
  DType dtype;
  int num_heads, num_kv_heads, head_dim;
  int num_sequences, context_tokens, num_rows;  // rows of each sequence
  bool has_warpgroups = false;
};

const char* NameOf(DType dtype) {
  return dtype == DType::kI8 ? "int8" : dtype == DType::kF8E4M3 ? "fp8" : dtype == DType::kF16 ? "f16" : "bf16";
}

double KvBytes(const BenchCase& bench) {
  const double vector_bytes =
      bench.head_dim * static_cast<double>(DTypeBytes(bench.dtype)) + (bench.dtype == DType::kI8 ? sizeof(float) : 0);
  return 2.0 * bench.num_sequences * (bench.context_tokens + bench.num_rows) * bench.num_kv_heads * vector_bytes;
}

// The layers of a step: KV memory each, one page table and one plan for all; replayed from a CUDA graph.
class BenchStep {
 public:
  BenchStep(const BenchCase& bench, const Machine& machine)
      : bench_(bench),
        pages_each_((bench.context_tokens + bench.num_rows + kPageTokens - 1) / kPageTokens),
        num_layers_(std::clamp(
            static_cast<int>(kFewestCacheSizes * machine.properties.l2CacheSize / KvBytes(bench)) + 1, 2, kMostLayers)),
        num_multiprocessors_(machine.properties.multiProcessorCount),
        q_(Filled(num_values() * 2)),
        out_(Filled(num_values() * 2)),
        plan_(Filled(AttentionPlanBytes(shape(), bench.num_sequences))),
        workspace_(
            Filled(AttentionWorkspaceBytes(shape(), bench.num_sequences, bench.context_tokens + bench.num_rows))) {
    std::vector<int32_t> pages(static_cast<size_t>(num_pages()));
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), std::mt19937(1));
    pages_ = Upload(pages);
    std::vector<DeviceSequence> sequences;
    for (int s = 0; s < bench.num_sequences; ++s) {
      sequences.push_back({s * bench.num_rows, bench.num_rows, bench.context_tokens, s * pages_each_});
    }
    sequences_ = Upload(sequences);
    const size_t vectors = static_cast<size_t>(num_pages()) * static_cast<size_t>(bench.num_kv_heads * kPageTokens);
    scales_ = Upload(std::vector<float>(vectors, 0.01f));
    for (int i = 0; i < 2 * num_layers_; ++i) {
      kv_.push_back(Filled(vectors * static_cast<size_t>(bench.head_dim) * DTypeBytes(bench.dtype)));
    }
    Capture();
  }
  BenchStep(const BenchStep&) = delete;
  ~BenchStep() {
    cudaGraphExecDestroy(replay_);
    cudaGraphDestroy(graph_);
  }

  int num_layers() const { return num_layers_; }
  cudaError_t Replay() { return cudaGraphLaunch(replay_, nullptr); }

 private:
  int num_pages() const { return pages_each_ * bench_.num_sequences; }
  int width() const { return bench_.num_heads * bench_.head_dim; }
  int num_rows() const { return bench_.num_sequences * bench_.num_rows; }
  size_t num_values() const { return static_cast<size_t>(num_rows()) * static_cast<size_t>(width()); }
  AttentionShape shape() const { return {bench_.num_heads, bench_.num_kv_heads, bench_.head_dim, 0}; }
  Matrix View(const Memory<uint8_t>& memory) const {
    return {.data = memory.get(), .dtype = DType::kBF16, .rows = num_rows(), .cols = width(), .stride = width()};
  }

  void Capture() {
    cudaStream_t stream;
    Require(cudaStreamCreate(&stream), "cudaStreamCreate");
    LaunchLayers(stream);  // loads the kernels, which a capture might not allow
    Require(cudaStreamSynchronize(stream), "the first launch");
    Require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    LaunchLayers(stream);
    Require(cudaStreamEndCapture(stream, &graph_), "cudaStreamEndCapture");
    Require(cudaGraphInstantiate(&replay_, graph_, 0), "cudaGraphInstantiate");
    Require(cudaStreamDestroy(stream), "cudaStreamDestroy");
  }
  void LaunchLayers(cudaStream_t stream) {
    const AttentionPlanLaunch plan{
        .shape = shape(), .sequences = sequences_.get(), .num_sequences = bench_.num_sequences, .plan = plan_.get()};
    Require(LaunchAttentionPlan(plan, stream), "LaunchAttentionPlan");
    for (size_t layer = 0; layer < static_cast<size_t>(num_layers_); ++layer) {
      Require(LaunchAttention(LayerLaunch(layer), stream), "LaunchAttention");
    }
  }
  AttentionLaunch LayerLaunch(size_t layer) {
    return {.q = View(q_),
            .num_heads = bench_.num_heads,
            .kv = {.keys = kv_[2 * layer].get(),
                   .values = kv_[2 * layer + 1].get(),
                   .key_scales = scales_.get(),
                   .value_scales = scales_.get(),
                   .dtype = bench_.dtype,
                   .num_pages = num_pages(),
                   .page_tokens = kPageTokens,
                   .num_kv_heads = bench_.num_kv_heads,
                   .head_dim = bench_.head_dim},
            .sequences = sequences_.get(),
            .num_sequences = bench_.num_sequences,
            .pages = pages_.get(),
            .plan = plan_.get(),
            .workspace = workspace_.get(),
            .scale = 1.0f / std::sqrt(static_cast<float>(bench_.head_dim)),
            .out = View(out_),
            .mix = bench_.num_rows == 1 ? AttentionMix::kDecode : AttentionMix::kMixed,
            .num_multiprocessors = num_multiprocessors_,
            .has_warpgroups = bench_.has_warpgroups};
  }

  const BenchCase bench_;
  const int pages_each_, num_layers_, num_multiprocessors_;
  const Memory<uint8_t> q_, out_, plan_, workspace_;
  Memory<DeviceSequence> sequences_;
  Memory<int32_t> pages_;
  Memory<float> scales_;
  std::vector<Memory<uint8_t>> kv_;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t replay_ = nullptr;
};

void Run(const Machine& machine, const BenchCase& bench) {
  BenchStep step(bench, machine);
  Timing timing = cuda_bench::Measure([&] { return step.Replay(); });
  timing.median_us /= step.num_layers();
  timing.spread_us /= step.num_layers();
  const double seen = bench.num_rows * (bench.context_tokens + 0.5 * (bench.num_rows + 1));
  const double flops = 4.0 * bench.num_sequences * seen * bench.num_heads * bench.head_dim;
  char shape[160];
  std::snprintf(shape, sizeof(shape), "%s KV, %d/%d heads of %d, %d x (%d + %d) tokens", NameOf(bench.dtype),
                bench.num_heads, bench.num_kv_heads, bench.head_dim, bench.num_sequences, bench.context_tokens,
                bench.num_rows);
  if (bench.num_rows == 1) {
    return cuda_bench::Report("attention decode", shape, timing, KvBytes(bench), machine.copy_bandwidth);
  }
  const double rate = flops / (timing.median_us * 1e-6);
  std::printf(
      "{\"what\": \"attention prefill%s\", \"shape\": \"%s\", \"us\": %.2f, \"spread_us\": %.2f, "
      "\"TFLOP/s\": %.1f, \"of_peak\": %.3f}\n",
      bench.has_warpgroups ? ", warpgroups" : "", shape, timing.median_us, timing.spread_us, rate * 1e-12,
      machine.tensor_peak > 0 ? rate / machine.tensor_peak : 0.0);
  std::fflush(stdout);
}

void RunDecode(const Machine& machine) {
  for (const DType dtype : {DType::kBF16, DType::kI8, DType::kF8E4M3}) {
    for (const int num_sequences : {1, 16, 128}) {
      for (const int tokens : {512, 4096, 32768}) {
        if (static_cast<int64_t>(num_sequences) * tokens > 1'000'000) continue;
        Run(machine, {dtype, 32, 8, 128, num_sequences, tokens - 1, 1});
        if (dtype == DType::kBF16) Run(machine, {dtype, 14, 2, 64, num_sequences, tokens - 1, 1});
      }
    }
  }
}

// By the kernel that runs everywhere, and by the one of warpgroups where the device has them.
void RunBoth(const Machine& machine, BenchCase bench) {
  Run(machine, bench);
  bench.has_warpgroups = machine.has_warpgroups;
  if (bench.has_warpgroups) Run(machine, bench);
}

void RunPrefill(const Machine& machine) {
  for (const DType dtype : {DType::kBF16, DType::kI8, DType::kF8E4M3}) {
    for (const int rows : {16, 512, 4096}) {
      for (const int context : {0, 8192}) RunBoth(machine, {dtype, 32, 8, 128, 1, context, rows});
    }
  }
  RunBoth(machine, {DType::kBF16, 32, 8, 128, 1, 0, 16384});
  for (const DType dtype : {DType::kBF16, DType::kI8, DType::kF8E4M3}) {
    RunBoth(machine, {dtype, 14, 2, 64, 1, 0, 2048});
  }
  RunBoth(machine, {DType::kBF16, 32, 8, 128, 8, 0, 512});
}

}  // namespace
}  // namespace millrace::cuda

int main(int argc, char** argv) {
  const bool has_name = argc == 2 && (std::strcmp(argv[1], "decode") == 0 || std::strcmp(argv[1], "prefill") == 0);
  if (argc != 1 && !has_name) {
    std::fprintf(stderr, "usage: attention_bench [decode|prefill]\n");
    return 2;
  }
  millrace::cuda_bench::RequireGpu("attention_bench");
  millrace::cuda::Machine machine;
  millrace::cuda_bench::Require(cudaGetDeviceProperties(&machine.properties, 0), "cudaGetDeviceProperties");
  machine.copy_bandwidth = millrace::cuda_bench::MeasureCopyBandwidth();
  machine.tensor_peak = millrace::cuda::TensorPeak(machine.properties);
  millrace::cuda_bench::Require(millrace::cuda::FindWarpgroups(machine.has_warpgroups), "asking for warpgroups");
  if (!has_name || argv[1][0] == 'd') millrace::cuda::RunDecode(machine);
  if (!has_name || argv[1][0] == 'p') millrace::cuda::RunPrefill(machine);
  return 0;
}
