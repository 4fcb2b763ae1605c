// SPDX-License-Identifier: Apache-2.0
// The sampler on one thread: time of one row of 128256 logits (Llama 3's vocabulary) for each way of drawing.
// "peaked" logits have a normal spread of 4, "flat" of 0.5 (nearly every token stays in a nucleus). The time includes
// a copy of the row, because the op may overwrite it; "copy" is that alone.
#include <benchmark/benchmark.h>

#include <cstring>
#include <random>
#include <vector>

#include "kernels/device.h"
#include "kernels/ops.h"

namespace millrace {
namespace {

constexpr int64_t kVocab = 128256;

std::vector<float> Logits(float spread) {
  std::mt19937 engine(1);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(kVocab);
  for (float& logit : logits) logit = normal(engine);
  return logits;
}

void Measure(benchmark::State& state, CpuPath path, float spread, SampleRow row) {
  auto device = MakeCpuDevice({.num_threads = 1, .path = path});
  if (!device.ok()) return state.SkipWithError(std::string(device.status().message()).c_str());
  const std::vector<float> logits = Logits(spread);
  std::vector<float> copy(logits.size());
  std::vector<TokenLogprob> top(20);
  for (auto _ : state) {
    std::memcpy(copy.data(), logits.data(), logits.size() * sizeof(float));
    SampleResult result{.top = absl::MakeSpan(top)};
    ++row.position;
    (*device)->ops().Sample({.logits = {.data = copy.data(), .rows = 1, .cols = kVocab, .stride = kVocab},
                             .rows = absl::MakeConstSpan(&row, 1),
                             .results = absl::MakeSpan(&result, 1)});
    benchmark::DoNotOptimize(result);
  }
}

void Copy(benchmark::State& state) {
  const std::vector<float> logits = Logits(1);
  std::vector<float> copy(logits.size());
  for (auto _ : state) {
    std::memcpy(copy.data(), logits.data(), logits.size() * sizeof(float));
    benchmark::DoNotOptimize(copy.data());
    benchmark::ClobberMemory();
  }
}

void RegisterAll() {
  benchmark::RegisterBenchmark("copy", Copy)->Unit(benchmark::kMicrosecond);
  static const std::vector<int32_t> prompt(1000, 17);
  static const std::vector<uint32_t> mask(kVocab / 32 + 1, 0x00010001u);
  struct Mode {
    const char* name;
    SampleRow row;
  };
  const Mode modes[] = {{"greedy", {.temperature = 0}},
                        {"temperature", {}},
                        {"top_k_50", {.top_k = 50}},
                        {"top_k_5000", {.top_k = 5000}},
                        {"top_p_0.95", {.top_p = 0.95f}},
                        {"min_p_0.05", {.min_p = 0.05f}},
                        {"top_k_50_top_p_0.95", {.top_k = 50, .top_p = 0.95f}},
                        {"penalties", {.repetition_penalty = 1.1f, .prompt_tokens = prompt}},
                        {"mask", {.mask = mask.data()}},
                        {"top_logprobs_20", {.num_top_logprobs = 20}}};
  const struct {
    const char* name;
    CpuPath path;
  } paths[] = {{"reference", CpuPath::kReference}, {"avx2", CpuPath::kAvx2}, {"avx512", CpuPath::kAvx512}};
  for (const auto& path : paths) {
    for (const Mode& mode : modes) {
      for (const float spread : {4.0f, 0.5f}) {
        const std::string name = std::string(path.name) + "/" + mode.name + (spread > 1 ? "/peaked" : "/flat");
        benchmark::RegisterBenchmark(name.c_str(), Measure, path.path, spread, mode.row)->Unit(benchmark::kMicrosecond);
      }
    }
  }
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  millrace::RegisterAll();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
