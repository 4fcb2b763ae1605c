// SPDX-License-Identifier: Apache-2.0
// Log-probabilities, ranks and best tokens, from Sample and from Logprobs, against double precision.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/op_functions.h"
#include "kernels/ops.h"
#include "tests/support/reference.h"

namespace millrace {
namespace {

using testing::RandomFloats;

constexpr int32_t kTop = 20;

CpuPath NextPath() {
  std::vector<CpuPath> paths;
  for (const CpuPath path : {CpuPath::kReference, CpuPath::kAvx2, CpuPath::kAvx512}) {
    if (cpu::HasCpuPath(path)) paths.push_back(path);
  }
  return GENERATE_COPY(from_range(paths));
}

// Checks the logprob and rank of result.token, and the best tokens, of one row of raw logits.
void CheckResult(const std::vector<float>& logits, const SampleResult& result) {
  REQUIRE_FALSE(result.is_failed);
  const double largest = *std::max_element(logits.begin(), logits.end());
  const double smallest = *std::min_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  const double normalizer = largest + std::log(sum);
  // The result is rounded once; within the sum each exponent's difference and its exponential are, which moves the
  // logarithm by no more than the worst of them. eps = 2^-24.
  const double tolerance = 0x1p-24 * (2 * (largest - smallest) + std::log(logits.size()) + 4);
  const float own = logits[static_cast<size_t>(result.token)];
  CHECK(std::abs(result.logprob - (own - normalizer)) <= tolerance);
  CHECK(result.rank == std::count_if(logits.begin(), logits.end(), [&](float logit) { return logit >= own; }));
  std::vector<size_t> best(logits.size());
  std::iota(best.begin(), best.end(), 0);
  std::sort(best.begin(), best.end(),
            [&](size_t a, size_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  for (size_t i = 0; i < std::min<size_t>(logits.size(), kTop); ++i) {
    CHECK(result.top[i].token == static_cast<int32_t>(best[i]));
    CHECK(std::abs(result.top[i].logprob - (logits[best[i]] - normalizer)) <= tolerance);
  }
}

}  // namespace

TEST_CASE("Logprobs: of a drawn token they are of the raw logits, with ties ordered by id", "[kernels][logprobs]") {
  const CpuPath path = NextPath();
  CAPTURE(cpu::CpuPathName(path));
  const TokenLogprob bias[] = {{.token = 0, .logprob = 2.5f}};  // more than the penalty takes
  const int32_t output[] = {0, 0};
  cpu::ThreadPool pool(1);
  for (const int64_t vocab : {1, 3, 17, 1009}) {
    for (const float spread : {0.01f, 3.0f, 60.0f}) {
      auto raw = RandomFloats(vocab, 4, spread);
      if (vocab > 3) raw[3] = raw[1];
      for (uint64_t position = 0; position < 10; ++position) {
        CAPTURE(vocab, spread, position);
        const SampleRow row{.temperature = 1.5f,
                            .frequency_penalty = 0.5f,
                            .position = position,
                            .output_tokens = output,
                            .logit_bias = bias,
                            .num_top_logprobs = kTop};
        auto logits = raw;
        std::vector<TokenLogprob> top(kTop);
        SampleResult result{.top = absl::MakeSpan(top)};
        cpu::Sample({.logits = {.data = logits.data(), .rows = 1, .cols = vocab, .stride = vocab},
                     .rows = absl::MakeConstSpan(&row, 1),
                     .results = absl::MakeSpan(&result, 1)},
                    {pool, path});
        CheckResult(raw, result);
      }
    }
  }
}

TEST_CASE("Logprobs: of given tokens they agree with double, whatever the batch and the threads",
          "[kernels][logprobs]") {
  const CpuPath path = NextPath();
  CAPTURE(cpu::CpuPathName(path));
  constexpr int64_t kRows = 9, kStride = 260;
  for (const int64_t vocab : {2, 19, 257}) {
    auto logits = RandomFloats(kRows * kStride, 5, 4);
    logits[3 * kStride + 1] = -INFINITY;  // what a model never says has no probability and the last rank
    std::vector<int32_t> targets;
    for (int64_t r = 0; r < kRows; ++r) targets.push_back(static_cast<int32_t>(r == 3 ? 1 : r * 31 % vocab));
    std::vector<float> first;
    for (const int num_threads : {1, 2, 3, 8}) {
      std::vector<TokenLogprob> tops(kRows * kTop);
      std::vector<SampleResult> results(kRows);
      for (size_t r = 0; r < kRows; ++r) results[r].top = absl::MakeSpan(tops).subspan(r * kTop, kTop);
      cpu::ThreadPool pool(num_threads);
      cpu::Logprobs({.logits = {.data = logits.data(), .rows = kRows, .cols = vocab, .stride = kStride},
                     .targets = targets,
                     .num_top = kTop,
                     .results = absl::MakeSpan(results)},
                    {pool, path});
      std::vector<float> logprobs;
      for (size_t r = 0; r < kRows; ++r) {
        CAPTURE(vocab, num_threads, r);
        CHECK(results[r].token == targets[r]);
        logprobs.push_back(results[r].logprob);
        const auto at = logits.begin() + static_cast<ptrdiff_t>(r) * kStride;
        if (r != 3) CheckResult({at, at + vocab}, results[r]);
      }
      CHECK(results[3].logprob == -INFINITY);
      CHECK(results[3].rank == vocab);
      if (first.empty()) first = logprobs;
      CHECK(std::memcmp(first.data(), logprobs.data(), sizeof(float) * kRows) == 0);
    }
  }
}

}  // namespace millrace
