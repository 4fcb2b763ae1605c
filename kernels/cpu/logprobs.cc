// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/logprobs.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/check.h"
#include "kernels/cpu/op_context.h"

namespace millrace::cpu {

void FillLogprobs(const float* logits, int64_t vocab, int32_t num_top, VocabScan& scan, SampleResult& result) {
  MILLRACE_CHECK(result.token >= 0 && result.token < vocab, "a token id is outside the logits");
  const bool is_sound = scan.FindLargest(logits, vocab) >= 0;
  const double normalizer = is_sound ? std::log(scan.SumWeights(1.0f)) + scan.largest() : std::nan("");
  const float own = logits[result.token];
  result.logprob = static_cast<float>(own - normalizer);
  result.rank = static_cast<int32_t>(scan.CountAtLeast(own));
  const size_t num_wanted =
      std::min({static_cast<size_t>(std::max(num_top, 0)), result.top.size(), static_cast<size_t>(vocab)});
  if (num_wanted == 0) return;
  absl::Span<TokenLogprob> best;
  if (is_sound) best = scan.Collect(-std::numeric_limits<float>::infinity(), static_cast<int64_t>(num_wanted));
  const size_t num_found = std::min(num_wanted, best.size());
  std::partial_sort(best.begin(), best.begin() + static_cast<ptrdiff_t>(num_found), best.end(), IsBetter);
  for (size_t i = 0; i < num_found; ++i) {
    result.top[i] = {.token = best[i].token, .logprob = static_cast<float>(best[i].logprob - normalizer)};
  }
  for (size_t i = num_found; i < num_wanted; ++i) result.top[i] = {};  // fewer tokens than wanted are possible at all
}

void Logprobs(const LogprobsArgs& args, const OpContext& context) {
  context.pool.ParallelFor(args.logits.rows, [&](int64_t begin, int64_t end, int /*worker*/) {
    thread_local VocabScan scan;
    scan.Reserve(args.logits.cols, context.path);
    for (int64_t r = begin; r < end; ++r) {
      SampleResult& result = args.results[static_cast<size_t>(r)];
      result.token = args.targets[static_cast<size_t>(r)];
      const float* logits = static_cast<const float*>(args.logits.data) + r * args.logits.stride;
      FillLogprobs(logits, args.logits.cols, args.num_top, scan, result);
    }
  });
}

}  // namespace millrace::cpu
