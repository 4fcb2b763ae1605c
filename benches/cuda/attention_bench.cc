// SPDX-License-Identifier: Apache-2.0
// Paged attention on a GPU: decode as bytes of KV memory read per second beside what a copy on the device reaches,
// prefill as arithmetic per second (of the causal half only). Launches are replayed from a CUDA graph that goes round
// as many layers as it takes to find each one's memory outside the L2 cache; pages are scattered. Median of the runs
// and their spread. Launcher level: builds with nvcc and a C++ compiler alone.
//
//   attention_bench [decode|prefill]
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/attention.h"

namespace millrace::cuda {
namespace {

constexpr int kRuns = 25;
constexpr int kPageTokens = 16;
constexpr int kMostLayers = 64;

void Require(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "attention_bench: %s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

class Memory {
 public:
  explicit Memory(size_t num_bytes) : num_bytes_(num_bytes) { Require(cudaMalloc(&data_, num_bytes), "cudaMalloc"); }
  Memory(Memory&& other) noexcept : data_(other.data_), num_bytes_(other.num_bytes_) { other.data_ = nullptr; }
  Memory(const Memory&) = delete;
  ~Memory() { cudaFree(data_); }
  void Fill(int byte) { Require(cudaMemset(data_, byte, num_bytes_), "cudaMemset"); }
  template <typename T>
  void Upload(const std::vector<T>& values) {
    Require(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  void* data() { return data_; }

 private:
  void* data_ = nullptr;
  size_t num_bytes_;
};

struct Machine {
  cudaDeviceProp properties = {};
  cudaStream_t stream = nullptr;
  double copy_bytes_per_second = 0;
};

struct Timing {
  double median_seconds = 0, least_seconds = 0, most_seconds = 0;
};

// Times what `launch` puts on the stream, captured once and replayed.
Timing Measure(const Machine& machine, const std::function<void(cudaStream_t)>& launch) {
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  cudaEvent_t begin, end;
  Require(cudaStreamBeginCapture(machine.stream, cudaStreamCaptureModeThreadLocal), "capture");
  launch(machine.stream);
  Require(cudaStreamEndCapture(machine.stream, &graph), "capture");
  Require(cudaGraphInstantiate(&replay, graph, 0), "cudaGraphInstantiate");
  Require(cudaEventCreate(&begin), "cudaEventCreate");
  Require(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<double> seconds;
  for (int run = -3; run < kRuns; ++run) {  // the first three warm up
    Require(cudaEventRecord(begin, machine.stream), "cudaEventRecord");
    Require(cudaGraphLaunch(replay, machine.stream), "cudaGraphLaunch");
    Require(cudaEventRecord(end, machine.stream), "cudaEventRecord");
    Require(cudaEventSynchronize(end), "the kernels");
    float milliseconds = 0;
    Require(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime");
    if (run >= 0) seconds.push_back(milliseconds * 1e-3);
  }
  std::sort(seconds.begin(), seconds.end());
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
  return {seconds[seconds.size() / 2], seconds.front(), seconds.back()};
}

Machine OpenMachine() {
  int num_devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&num_devices);
  if (error != cudaSuccess || num_devices == 0) {
    std::fprintf(stderr, "attention_bench: this machine has no CUDA device (%s)\n", cudaGetErrorString(error));
    std::exit(1);
  }
  Machine machine;
  Require(cudaGetDeviceProperties(&machine.properties, 0), "cudaGetDeviceProperties");
  Require(cudaStreamCreate(&machine.stream), "cudaStreamCreate");
  constexpr size_t kCopyBytes = size_t{1} << 30;
  Memory from(kCopyBytes), to(kCopyBytes);
  from.Fill(0);
  const Timing copy = Measure(machine, [&](cudaStream_t stream) {
    Require(cudaMemcpyAsync(to.data(), from.data(), kCopyBytes, cudaMemcpyDeviceToDevice, stream), "cudaMemcpyAsync");
  });
  machine.copy_bytes_per_second = 2.0 * kCopyBytes / copy.median_seconds;
  return machine;
}

struct BenchCase {
  DType dtype;
  int num_heads, num_kv_heads, head_dim;
  int num_sequences, context_tokens, num_rows;  // rows of each sequence
};

const char* NameOf(DType dtype) {
  return dtype == DType::kI8 ? "int8" : dtype == DType::kF8E4M3 ? "fp8" : dtype == DType::kF16 ? "f16" : "bf16";
}

double KvBytes(const BenchCase& bench) {
  const double vector_bytes =
      bench.head_dim * static_cast<double>(DTypeBytes(bench.dtype)) + (bench.dtype == DType::kI8 ? sizeof(float) : 0);
  return 2.0 * bench.num_sequences * (bench.context_tokens + bench.num_rows) * bench.num_kv_heads * vector_bytes;
}

// The layers of a step: KV memory each, one page table and one plan for all.
class BenchStep {
 public:
  BenchStep(const BenchCase& bench, const Machine& machine)
      : bench_(bench),
        pages_each_((bench.context_tokens + bench.num_rows + kPageTokens - 1) / kPageTokens),
        num_layers_(
            std::clamp(static_cast<int>(3.0 * machine.properties.l2CacheSize / KvBytes(bench)) + 1, 2, kMostLayers)),
        num_multiprocessors_(machine.properties.multiProcessorCount),
        q_(num_values() * 2),
        out_(num_values() * 2),
        sequences_(sizeof(DeviceSequence) * static_cast<size_t>(bench.num_sequences)),
        pages_(sizeof(int32_t) * static_cast<size_t>(num_pages())),
        plan_(AttentionPlanBytes(shape(), bench.num_sequences)),
        workspace_(AttentionWorkspaceBytes(shape(), bench.num_sequences, bench.context_tokens + bench.num_rows)) {
    q_.Fill(0x3c);  // a tame number in every type
    std::vector<int32_t> pages(static_cast<size_t>(num_pages()));
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), std::mt19937(1));
    pages_.Upload(pages);
    std::vector<DeviceSequence> sequences;
    for (int s = 0; s < bench.num_sequences; ++s) {
      sequences.push_back({s * bench.num_rows, bench.num_rows, bench.context_tokens, s * pages_each_});
    }
    sequences_.Upload(sequences);
    const size_t vectors = static_cast<size_t>(num_pages()) * static_cast<size_t>(bench.num_kv_heads * kPageTokens);
    for (int layer = 0; layer < num_layers_; ++layer) {
      for (int i = 0; i < 2; ++i) {
        kv_.emplace_back(vectors * static_cast<size_t>(bench.head_dim) * DTypeBytes(bench.dtype));
        kv_.back().Fill(0x3c);
      }
      scales_.emplace_back(vectors * sizeof(float));
      scales_.back().Upload(std::vector<float>(vectors, 0.01f));
    }
  }

  int num_layers() const { return num_layers_; }
  void Launch(cudaStream_t stream) {
    Require(
        LaunchAttentionPlan(
            {.shape = shape(), .sequences = sequences(), .num_sequences = bench_.num_sequences, .plan = plan_.data()},
            stream),
        "LaunchAttentionPlan");
    for (int layer = 0; layer < num_layers_; ++layer) Require(LaunchAttention(LayerLaunch(layer), stream), "launch");
  }

 private:
  int num_pages() const { return pages_each_ * bench_.num_sequences; }
  int width() const { return bench_.num_heads * bench_.head_dim; }
  int num_rows() const { return bench_.num_sequences * bench_.num_rows; }
  size_t num_values() const { return static_cast<size_t>(num_rows()) * static_cast<size_t>(width()); }
  AttentionShape shape() const { return {bench_.num_heads, bench_.num_kv_heads, bench_.head_dim, 0}; }
  const DeviceSequence* sequences() { return static_cast<const DeviceSequence*>(sequences_.data()); }
  Matrix View(Memory& memory) const {
    return {.data = memory.data(), .dtype = DType::kBF16, .rows = num_rows(), .cols = width(), .stride = width()};
  }
  AttentionLaunch LayerLaunch(int layer) {
    auto* scales = static_cast<float*>(scales_[static_cast<size_t>(layer)].data());
    return {.q = View(q_),
            .num_heads = bench_.num_heads,
            .kv = {.keys = kv_[static_cast<size_t>(2 * layer)].data(),
                   .values = kv_[static_cast<size_t>(2 * layer + 1)].data(),
                   .key_scales = scales,
                   .value_scales = scales,
                   .dtype = bench_.dtype,
                   .num_pages = num_pages(),
                   .page_tokens = kPageTokens,
                   .num_kv_heads = bench_.num_kv_heads,
                   .head_dim = bench_.head_dim},
            .sequences = sequences(),
            .num_sequences = bench_.num_sequences,
            .pages = static_cast<const int32_t*>(pages_.data()),
            .plan = plan_.data(),
            .workspace = workspace_.data(),
            .scale = 1.0f / std::sqrt(static_cast<float>(bench_.head_dim)),
            .out = View(out_),
            .mix = bench_.num_rows == 1 ? AttentionMix::kDecode : AttentionMix::kMixed,
            .num_multiprocessors = num_multiprocessors_};
  }

  const BenchCase bench_;
  const int pages_each_, num_layers_, num_multiprocessors_;
  Memory q_, out_, sequences_, pages_, plan_, workspace_;
  std::vector<Memory> kv_, scales_;
};

void Run(const Machine& machine, const BenchCase& bench) {
  BenchStep step(bench, machine);
  const Timing timing = Measure(machine, [&](cudaStream_t stream) { step.Launch(stream); });
  const double layer_seconds = timing.median_seconds / step.num_layers();
  const double bytes_per_second = KvBytes(bench) / layer_seconds;
  const double seen = bench.num_rows * (bench.context_tokens + 0.5 * (bench.num_rows + 1));
  const double flops = 4.0 * bench.num_sequences * seen * bench.num_heads * bench.head_dim;
  std::printf("%-5s %3d/%d x %3d  %4d x (%6d + %5d)  %9.1f us (%+.0f%% %+.0f%%)  %7.0f GB/s %4.0f%%  %7.1f TFLOP/s\n",
              NameOf(bench.dtype), bench.num_heads, bench.num_kv_heads, bench.head_dim, bench.num_sequences,
              bench.context_tokens, bench.num_rows, layer_seconds * 1e6,
              100 * (timing.least_seconds / timing.median_seconds - 1),
              100 * (timing.most_seconds / timing.median_seconds - 1), bytes_per_second * 1e-9,
              100 * bytes_per_second / machine.copy_bytes_per_second, flops / layer_seconds * 1e-12);
  std::fflush(stdout);
}

void RunDecode(const Machine& machine) {
  for (const DType dtype : {DType::kBF16, DType::kI8, DType::kF8E4M3}) {
    for (const int num_sequences : {1, 8, 64, 256}) {
      for (const int context : {512, 2048, 8192, 32768}) {
        if (static_cast<int64_t>(num_sequences) * context > 2'000'000) continue;
        Run(machine, {dtype, 32, 8, 128, num_sequences, context - 1, 1});
        if (dtype == DType::kBF16) Run(machine, {dtype, 14, 2, 64, num_sequences, context - 1, 1});
      }
    }
  }
}

void RunPrefill(const Machine& machine) {
  for (const DType dtype : {DType::kBF16, DType::kI8, DType::kF8E4M3}) {
    for (const int rows : {16, 512, 2048, 8192}) {
      for (const int context : {0, 8192}) Run(machine, {dtype, 32, 8, 128, 1, context, rows});
    }
    Run(machine, {dtype, 14, 2, 64, 1, 0, 2048});
    Run(machine, {dtype, 32, 8, 128, 8, 0, 512});
  }
}

int RunBench(int argc, char** argv) {
  const bool is_known =
      argc == 1 || (argc == 2 && (!std::strcmp(argv[1], "decode") || !std::strcmp(argv[1], "prefill")));
  if (!is_known) {
    std::fprintf(stderr, "usage: attention_bench [decode|prefill]\n");
    return 2;
  }
  const Machine machine = OpenMachine();
  std::printf("%s, %d multiprocessors, %d MiB of L2; a copy reads and writes %.0f GB/s\n", machine.properties.name,
              machine.properties.multiProcessorCount, machine.properties.l2CacheSize >> 20,
              machine.copy_bytes_per_second * 1e-9);
  std::printf(
      "KV, query/KV heads x D, sequences x (context + rows), time of a layer (least, most), KV bytes read and "
      "the share of the copy's rate, arithmetic\n");
  if (argc == 1 || argv[1][0] == 'd') RunDecode(machine);
  if (argc == 1 || argv[1][0] == 'p') RunPrefill(machine);
  return 0;
}

}  // namespace
}  // namespace millrace::cuda

int main(int argc, char** argv) { return millrace::cuda::RunBench(argc, argv); }
