// SPDX-License-Identifier: Apache-2.0
// The row ops and sampling at the shapes of Llama-3.1-8B, from one row to a full batch. See timing.h.
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "benches/cuda/timing.h"
#include "kernels/cuda/quantize_rows.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/sample.h"
#include "kernels/cuda/swiglu.h"

namespace millrace::cuda_bench {
namespace {

constexpr int64_t kHidden = 4096, kFfn = 14336, kVocab = 128256, kMaxRows = 2048, kMaxSampled = 256;

Matrix View(void* data, DType dtype, int64_t rows, int64_t cols) {
  return {.data = data, .dtype = dtype, .rows = rows, .cols = cols, .stride = cols};
}

void BenchRowOps(double bandwidth) {
  uint16_t* x = Allocate<uint16_t>(kMaxRows * 2 * kFfn);
  uint16_t* out = Allocate<uint16_t>(kMaxRows * kFfn);
  float* weight = Allocate<float>(kHidden);
  const cuda::QuantizedRows quantized = {Allocate<int8_t>(kMaxRows * kFfn), Allocate<float>(kMaxRows), kFfn};
  for (const int64_t rows : {1, 16, 256, 2048}) {
    const std::string shape = std::to_string(rows) + " rows";
    const Matrix hidden = View(x, DType::kBF16, rows, kHidden), normed = View(out, DType::kBF16, rows, kHidden);
    const Matrix gate_up = View(x, DType::kBF16, rows, 2 * kFfn), gated = View(out, DType::kBF16, rows, kFfn);
    const double hidden_bytes = static_cast<double>(2 * rows * kHidden);
    const double ffn_bytes = static_cast<double>(2 * rows * kFfn);
    const auto report = [&](const char* what, double num_bytes, const auto& work) {
      Report(what, shape.c_str(), Measure(work), num_bytes, bandwidth);
    };
    report("rms_norm bf16", 2 * hidden_bytes,
           [&] { return cuda::LaunchRmsNorm({.x = hidden, .weight = weight, .out = normed}, nullptr); });
    report("rms_norm int8", 1.5 * hidden_bytes,
           [&] { return cuda::LaunchRmsNorm({.x = hidden, .weight = weight, .quantized = quantized}, nullptr); });
    report("swiglu bf16", 3 * ffn_bytes,
           [&] { return cuda::LaunchSwiGlu({.gate_up = gate_up, .out = gated}, nullptr); });
    report("swiglu int8", 2.5 * ffn_bytes,
           [&] { return cuda::LaunchSwiGlu({.gate_up = gate_up, .out = {}, .quantized = quantized}, nullptr); });
    report("quantize_rows", 1.5 * ffn_bytes, [&] {
      return cuda::LaunchQuantizeRows({.x = View(x, DType::kBF16, rows, kFfn), .out = quantized}, nullptr);
    });
  }
  for (void* memory : {static_cast<void*>(x), static_cast<void*>(out), static_cast<void*>(weight),
                       static_cast<void*>(quantized.values), static_cast<void*>(quantized.scales)}) {
    Require(cudaFree(memory), "cudaFree");
  }
}

// Logits with the spread of a model's, the same for all rows.
std::vector<float> Logits() {
  std::vector<float> logits(kVocab);
  uint32_t state = 1;
  for (float& logit : logits) {
    float sum = 0;
    for (int i = 0; i < 12; ++i) {
      state = state * 1664525u + 1013904223u;
      sum += static_cast<float>(state >> 8) * 0x1p-24f - 0.5f;
    }
    logit = 3 * sum;
  }
  return logits;
}

void BenchSampling(double bandwidth) {
  const std::vector<float> one = Logits();
  float* logits = Allocate<float>(kMaxSampled * kVocab);
  for (int64_t r = 0; r < kMaxSampled; ++r) {
    Require(cudaMemcpy(logits + r * kVocab, one.data(), kVocab * sizeof(float), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  auto* rows = Allocate<cuda::DeviceSampleRow>(kMaxSampled);
  auto* results = Allocate<cuda::DeviceSampleResult>(kMaxSampled);
  auto* top = Allocate<cuda::DeviceTokenLogprob>(kMaxSampled * cuda::kMaxTopLogprobs);
  auto* workspace = Allocate<unsigned char>(cuda::SampleWorkspaceBytes(kMaxSampled, kVocab, 0));
  const struct {
    const char* name;
    cuda::DeviceSampleRow row;
    cuda::SampleFeatures features;
  } cases[] = {{"sample greedy", {.temperature = 0}, {}},
               {"sample temperature", {.temperature = 0.8f}, {}},
               {"sample top-k 50", {.top_k = 50}, {.has_filters = true}},
               {"sample top-p 0.9", {.temperature = 0.3f, .top_p = 0.9f}, {.has_filters = true}},
               {"sample top-p 0.95 of a flat row", {.temperature = 1.5f, .top_p = 0.95f}, {.has_filters = true}},
               {"sample greedy, 20 logprobs", {.temperature = 0, .num_top_logprobs = 20}, {.has_logprobs = true}}};
  for (const int num_rows : {1, 32, 256}) {
    for (const auto& one_case : cases) {
      std::vector<cuda::DeviceSampleRow> host(static_cast<size_t>(num_rows), one_case.row);
      for (int i = 0; i < num_rows; ++i) host[static_cast<size_t>(i)].row = i;
      Require(cudaMemcpy(rows, host.data(), host.size() * sizeof(host[0]), cudaMemcpyHostToDevice), "cudaMemcpy");
      const Timing timing = Measure([&] {
        return cuda::LaunchSample({.logits = View(logits, DType::kF32, num_rows, kVocab),
                                   .rows = rows,
                                   .num_rows = num_rows,
                                   .features = one_case.features,
                                   .results = results,
                                   .top = top,
                                   .workspace = workspace},
                                  nullptr);
      });
      Report(one_case.name, (std::to_string(num_rows) + " rows").c_str(), timing,
             static_cast<double>(num_rows) * kVocab * sizeof(float), bandwidth);
    }
  }
}

}  // namespace
}  // namespace millrace::cuda_bench

int main() {
  namespace bench = millrace::cuda_bench;
  bench::RequireGpu("row_ops_bench");
  const double bandwidth = bench::MeasureCopyBandwidth();
  std::printf("{\"what\": \"copy\", \"GB/s\": %.1f}\n", bandwidth / 1e9);
  bench::BenchRowOps(bandwidth);
  bench::BenchSampling(bandwidth);
}
