// SPDX-License-Identifier: Apache-2.0
// Log-probabilities and ranks against double precision: of given tokens, and of tokens drawn from edited logits.
#include "kernels/cuda/logprobs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "tests/cuda/sample_fixture.h"

namespace millrace::cuda_test {
namespace {

// A sum of up to 16 numbers a thread and 8 levels above errs by 24 roundings, the logarithm makes that absolute, and
// the result is rounded once.
double Tolerance(double logprob) { return 24 * 0x1p-23 + std::fabs(logprob) * 0x1p-23; }

void ExpectLogprobs(const std::vector<float>& logits, const cuda::DeviceSampleResult& result,
                    const cuda::DeviceTokenLogprob* top, int num_top, const std::string& where) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  const double normalizer = largest + std::log(sum);
  const float own = logits[static_cast<size_t>(result.token)];
  EXPECT_NEAR(result.logprob, own - normalizer, Tolerance(own - normalizer), where);
  const auto rank = std::count_if(logits.begin(), logits.end(), [&](float logit) { return logit >= own; });
  EXPECT(result.rank == rank) << where << " rank " << result.rank << " of " << rank;
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  for (int i = 0; i < num_top; ++i) {
    const size_t place = static_cast<size_t>(i);
    const bool is_there = place < order.size() && logits[order[place]] != kNever;
    EXPECT(top[i].token == (is_there ? static_cast<int32_t>(order[place]) : -1)) << where << " place " << i;
    if (!is_there) continue;
    const double want = logits[static_cast<size_t>(top[i].token)] - normalizer;
    EXPECT_NEAR(top[i].logprob, want, Tolerance(want), where + " place " + std::to_string(i));
  }
  EXPECT(num_top == cuda::kMaxTopLogprobs || std::isnan(top[num_top].logprob)) << where << " wrote more than wanted";
}

struct Given {
  std::vector<cuda::DeviceSampleResult> results;
  std::vector<cuda::DeviceTokenLogprob> top;
};

Given Logprobs(const std::vector<float>& logits, const std::vector<int32_t>& targets, int num_top, int64_t padding) {
  const int64_t num_rows = static_cast<int64_t>(targets.size());
  DeviceArray<float> device_logits(logits);
  DeviceArray<int32_t> device_targets(targets);
  DeviceArray<cuda::DeviceSampleResult> results(targets.size());
  DeviceArray<cuda::DeviceTokenLogprob> top(targets.size() * cuda::kMaxTopLogprobs);
  const int64_t vocab = static_cast<int64_t>(logits.size()) / num_rows - padding;
  DeviceArray<uint8_t> workspace(cuda::SampleWorkspaceBytes(num_rows, vocab, 0));
  EXPECT(cuda::LaunchLogprobs(
             {.logits = {.data = device_logits.data(), .rows = num_rows, .cols = vocab, .stride = vocab + padding},
              .targets = device_targets.data(),
              .num_top = num_top,
              .results = results.data(),
              .top = num_top > 0 ? top.data() : nullptr,
              .workspace = workspace.data()},
             nullptr) == cudaSuccess);
  return {results.Download(), top.Download()};
}

}  // namespace

KERNEL_TEST("logprobs: of given tokens they agree with double, with ties and tokens that cannot be") {
  constexpr int64_t kRows = 3, kPadding = 1;
  Random random(1);
  for (const int64_t vocab : {1, 2, 19, 257, 4096, 4099, 8200}) {
    for (const int num_top : {0, 1, 5, 20}) {
      std::vector<float> logits;
      std::vector<int32_t> targets;
      for (int64_t r = 0; r < kRows; ++r) {
        auto row = NormalLogits(random, static_cast<size_t>(vocab), r == 2 ? 0.0f : 4.0f);  // the last: all alike
        if (vocab > 2 && r == 0) row[1] = kNever;
        if (vocab == 19 && r == 1) std::fill(row.begin() + 6, row.end(), kNever);  // fewer than wanted
        row.resize(static_cast<size_t>(vocab + kPadding), std::nanf(""));
        logits.insert(logits.end(), row.begin(), row.end());
        targets.push_back(static_cast<int32_t>(r == 0 && vocab > 2 ? 2 : r * 31 % vocab % 6));
      }
      const Given given = Logprobs(logits, targets, num_top, kPadding);
      for (int64_t r = 0; r < kRows; ++r) {
        const size_t row = static_cast<size_t>(r);
        EXPECT(given.results[row].token == targets[row] && given.results[row].is_failed == 0);
        const auto begin = logits.begin() + r * (vocab + kPadding);
        ExpectLogprobs({begin, begin + vocab}, given.results[row], given.top.data() + row * cuda::kMaxTopLogprobs,
                       num_top, "vocabulary " + std::to_string(vocab) + " row " + std::to_string(r));
      }
    }
  }
}

KERNEL_TEST("logprobs: a broken row is NaN and has no best tokens; a target that is none is passed over") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float nan = std::nanf("");
  const std::vector<float> logits = {1, nan, 3, 1, kInfinity, 3, kNever, kNever, kNever, 1, 2, 3, 1, 2, kNever};
  const Given given = Logprobs(logits, {0, 0, 0, -1, 2}, 2, 0);
  for (size_t r = 0; r < 3; ++r) {
    EXPECT(std::isnan(given.results[r].logprob)) << "row " << r;
    EXPECT(given.top[r * cuda::kMaxTopLogprobs].token == -1 && given.top[r * cuda::kMaxTopLogprobs].logprob == 0);
  }
  EXPECT(std::isnan(given.results[3].logprob) && given.results[3].is_failed == -1) << "as poisoned before";
  EXPECT(given.results[4].logprob == kNever && given.results[4].rank == 3);
}

KERNEL_TEST("logprobs: of a drawn token they are of the logits as they came, which are there again") {
  Random random(2);
  for (const size_t vocab : {size_t{40}, size_t{4500}}) {
    for (const float temperature : {0.0f, 1.5f}) {
      RowToSample asked{.logits = NormalLogits(random, vocab, 2)};
      asked.row = {.temperature = temperature,
                   .top_k = 12,
                   .repetition_penalty = 1.4f,
                   .frequency_penalty = 0.5f,
                   .seed = 3,
                   .num_top_logprobs = 7};
      asked.biased = {5, 6};
      asked.biases = {30, 29};
      asked.banned = {3};
      asked.prompt = {3, 5, 9, 9};
      asked.output = {5, 5, 30};
      asked.mask.assign((vocab + 31) / 32, 0x7fffffffu);
      const Sampled sampled = Sample({asked});
      EXPECT(IsDrawOf(asked, Weights(asked), sampled.results[0].token) || temperature == 0);
      ExpectLogprobs(asked.logits, sampled.results[0], sampled.top.data(), 7, "vocabulary " + std::to_string(vocab));
      EXPECT(sampled.logits == asked.logits);
    }
  }
}

}  // namespace millrace::cuda_test
