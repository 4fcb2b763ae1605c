// SPDX-License-Identifier: Apache-2.0
// The next token of each row. Order of steps as vLLM's: bias, penalties, bans and mask, temperature, min-p, top-k,
// top-p, then one draw by inverse CDF over the remaining tokens in id order.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/check.h"
#include "kernels/cpu/logprobs.h"
#include "kernels/cpu/op_context.h"
#include "kernels/cpu/rng.h"
#include "kernels/ops.h"

namespace millrace::cpu {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// Per-thread memory that grows to the vocabulary once and stays.
struct Scratch {
  std::vector<int32_t> counts;     // of output tokens; all zero between rows
  std::vector<uint8_t> is_seen;    // in prompt or output; all zero between rows
  std::vector<TokenLogprob> kept;  // candidates with weights
  std::vector<float> values;
};

void Penalize(const SampleRow& row, float* logits, int64_t vocab, Scratch& scratch) {
  if (row.repetition_penalty == 1 && row.presence_penalty == 0 && row.frequency_penalty == 0) return;
  scratch.counts.resize(static_cast<size_t>(vocab), 0);
  scratch.is_seen.resize(static_cast<size_t>(vocab), 0);
  const auto repeat = [&](int32_t token) {
    if (token < 0 || token >= vocab || scratch.is_seen[static_cast<size_t>(token)] != 0) return;
    scratch.is_seen[static_cast<size_t>(token)] = 1;
    float& logit = logits[token];
    logit = logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty;
  };
  for (const int32_t token : row.prompt_tokens) repeat(token);
  for (const int32_t token : row.output_tokens) repeat(token);
  for (const int32_t token : row.output_tokens) {
    if (token < 0 || token >= vocab) continue;
    if (scratch.counts[static_cast<size_t>(token)]++ == 0) logits[token] -= row.presence_penalty;
    logits[token] -= row.frequency_penalty;
  }
  const auto forget = [&](int32_t token) {
    if (token < 0 || token >= vocab) return;
    scratch.is_seen[static_cast<size_t>(token)] = 0;
    scratch.counts[static_cast<size_t>(token)] = 0;
  };
  for (const int32_t token : row.prompt_tokens) forget(token);
  for (const int32_t token : row.output_tokens) forget(token);
}

// A NaN stays where it is: the row is broken, and a ban must not hide that.
void Forbid(float& logit) { logit = std::isnan(logit) ? logit : kNever; }

void Restrict(const SampleRow& row, float* logits, int64_t vocab) {
  for (const int32_t token : row.banned_tokens) {
    if (token >= 0 && token < vocab) Forbid(logits[token]);
  }
  if (row.mask == nullptr) return;
  for (int64_t i = 0; i < vocab; ++i) {
    if ((row.mask[i / 32] >> (i % 32) & 1u) == 0) Forbid(logits[i]);
  }
}

// The lowest id of the largest logit; -1 when there is a NaN or nothing finite is left.
int32_t ArgMax(const float* logits, int64_t vocab) {
  int32_t best = -1;
  float largest = kNever;
  for (int64_t i = 0; i < vocab; ++i) {
    if (std::isnan(logits[i]) || logits[i] == std::numeric_limits<float>::infinity()) return -1;
    if (logits[i] > largest) {
      largest = logits[i];
      best = static_cast<int32_t>(i);
    }
  }
  return best;
}

// The k-th largest of the logits; ties with it stay in.
float KthLargest(const float* logits, int64_t vocab, int32_t k, Scratch& scratch) {
  scratch.values.assign(logits, logits + vocab);
  const auto kth = scratch.values.begin() + (k - 1);
  std::nth_element(scratch.values.begin(), kth, scratch.values.end(), std::greater<>());
  return *kth;
}

// Keeps the smallest set of best candidates whose weights reach top_p of all.
void KeepTopP(float top_p, std::vector<TokenLogprob>& kept) {
  std::sort(kept.begin(), kept.end(), [](const TokenLogprob& a, const TokenLogprob& b) {
    return a.logprob != b.logprob ? a.logprob > b.logprob : a.token < b.token;
  });
  double total = 0;
  for (const TokenLogprob& candidate : kept) total += candidate.logprob;
  double reached = 0;
  size_t num_kept = 0;
  while (num_kept < kept.size() && reached < top_p * total) reached += kept[num_kept++].logprob;
  kept.resize(std::max<size_t>(num_kept, 1));
  std::sort(kept.begin(), kept.end(), [](const TokenLogprob& a, const TokenLogprob& b) { return a.token < b.token; });
}

int32_t Draw(const SampleRow& row, const float* logits, int64_t vocab, float largest, Scratch& scratch) {
  float threshold = kNever;
  if (row.min_p > 0) threshold = largest + row.temperature * std::log(row.min_p);
  if (row.top_k > 0 && row.top_k < vocab)
    threshold = std::max(threshold, KthLargest(logits, vocab, row.top_k, scratch));
  scratch.kept.clear();
  for (int64_t i = 0; i < vocab; ++i) {
    if (logits[i] < threshold || logits[i] == kNever) continue;
    const float weight = std::exp((logits[i] - largest) / row.temperature);
    scratch.kept.push_back({.token = static_cast<int32_t>(i), .logprob = weight});
  }
  if (row.top_p < 1) KeepTopP(row.top_p, scratch.kept);
  double total = 0;
  for (const TokenLogprob& candidate : scratch.kept) total += candidate.logprob;
  double left = UniformNoise(row.seed, row.position) * total;
  int32_t last = -1;
  for (const TokenLogprob& candidate : scratch.kept) {
    if (candidate.logprob == 0) continue;
    last = candidate.token;
    left -= candidate.logprob;
    if (left < 0) return last;
  }
  return last;
}

void SampleOne(const SampleRow& row, float* logits, int64_t vocab, SampleResult& result, Scratch& scratch) {
  const bool wants_logprobs = row.num_top_logprobs >= 0;
  if (wants_logprobs) scratch.values.assign(logits, logits + vocab);
  std::vector<float> raw;
  if (wants_logprobs) raw.swap(scratch.values);
  for (const TokenLogprob& bias : row.logit_bias) {
    if (bias.token >= 0 && bias.token < vocab) logits[bias.token] += bias.logprob;
  }
  Penalize(row, logits, vocab, scratch);
  Restrict(row, logits, vocab);
  const int32_t best = ArgMax(logits, vocab);
  result.is_failed = best < 0;
  result.token = best;
  if (best >= 0 && row.temperature > 0) result.token = Draw(row, logits, vocab, logits[best], scratch);
  if (wants_logprobs && result.token >= 0) FillLogprobs(raw.data(), vocab, row.num_top_logprobs, result);
}

}  // namespace

void Sample(const SampleArgs& args, const OpContext& context) {
  MILLRACE_CHECK(args.rows.size() == args.results.size(), "one result a row");
  const int64_t num_rows = static_cast<int64_t>(args.rows.size());
  context.pool.ParallelForChunks(num_rows, 1, [&](int64_t begin, int64_t end, int /*worker*/) {
    thread_local Scratch scratch;
    for (int64_t r = begin; r < end; ++r) {
      const SampleRow& row = args.rows[static_cast<size_t>(r)];
      float* logits = static_cast<float*>(args.logits.data) + row.row * args.logits.stride;
      SampleOne(row, logits, args.logits.cols, args.results[static_cast<size_t>(r)], scratch);
    }
  });
}

}  // namespace millrace::cpu
