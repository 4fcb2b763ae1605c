// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/logprobs.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/check.h"
#include "kernels/cpu/op_context.h"

namespace millrace::cpu {
namespace {

bool IsBetter(const TokenLogprob& a, const TokenLogprob& b) {
  return a.logprob != b.logprob ? a.logprob > b.logprob : a.token < b.token;
}

// The num_top best logits, kept sorted by insertion: num_top is small.
void FindTop(const float* logits, int64_t vocab, int32_t num_top, absl::Span<TokenLogprob> top) {
  int32_t num_found = 0;
  for (int64_t i = 0; i < vocab; ++i) {
    const TokenLogprob candidate{.token = static_cast<int32_t>(i), .logprob = logits[i]};
    if (num_found == num_top && !IsBetter(candidate, top[static_cast<size_t>(num_top - 1)])) continue;
    int32_t at = num_found < num_top ? num_found++ : num_top - 1;
    for (; at > 0 && IsBetter(candidate, top[static_cast<size_t>(at - 1)]); --at) {
      top[static_cast<size_t>(at)] = top[static_cast<size_t>(at - 1)];
    }
    top[static_cast<size_t>(at)] = candidate;
  }
}

}  // namespace

double LogSumExp(const float* logits, int64_t vocab) {
  float largest = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < vocab; ++i) largest = std::max(largest, logits[i]);
  double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) sum += std::exp(logits[i] - largest);
  return std::log(sum) + largest;
}

void FillLogprobs(const float* logits, int64_t vocab, int32_t num_top, SampleResult& result) {
  MILLRACE_CHECK(result.token >= 0 && result.token < vocab, "a token id is outside the logits");
  const double normalizer = LogSumExp(logits, vocab);
  const float own = logits[result.token];
  result.logprob = static_cast<float>(own - normalizer);
  result.rank = 0;
  for (int64_t i = 0; i < vocab; ++i) result.rank += logits[i] >= own ? 1 : 0;
  num_top = std::min({num_top, static_cast<int32_t>(result.top.size()), static_cast<int32_t>(vocab)});
  if (num_top <= 0) return;
  FindTop(logits, vocab, num_top, result.top);
  for (int32_t i = 0; i < num_top; ++i) {
    TokenLogprob& top = result.top[static_cast<size_t>(i)];
    top.logprob = static_cast<float>(top.logprob - normalizer);
  }
}

void Logprobs(const LogprobsArgs& args, const OpContext& context) {
  context.pool.ParallelFor(args.logits.rows, [&](int64_t begin, int64_t end, int /*worker*/) {
    for (int64_t r = begin; r < end; ++r) {
      SampleResult& result = args.results[static_cast<size_t>(r)];
      result.token = args.targets[static_cast<size_t>(r)];
      const float* logits = static_cast<const float*>(args.logits.data) + r * args.logits.stride;
      FillLogprobs(logits, args.logits.cols, args.num_top, result);
    }
  });
}

}  // namespace millrace::cpu
