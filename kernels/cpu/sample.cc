// SPDX-License-Identifier: Apache-2.0
// The next token of each row. Order of steps as vLLM's: bias, penalties, bans and mask, temperature, min-p, top-k,
// top-p, then one draw by inverse CDF over the remaining tokens in id order. Passes over the vocabulary are in
// vocab_scan.h; what remains after them is few tokens and plain code.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/check.h"
#include "kernels/cpu/logprobs.h"
#include "kernels/cpu/op_context.h"
#include "kernels/cpu/vocab_scan.h"
#include "kernels/ops.h"
#include "kernels/rng.h"

namespace millrace::cpu {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// Per-thread memory that grows to the vocabulary once and stays.
struct Scratch {
  std::vector<int32_t> counts;      // of output tokens; all zero between rows
  std::vector<uint8_t> is_seen;     // in prompt or output; all zero between rows
  std::vector<TokenLogprob> order;  // of top-p
  std::vector<float> raw;           // the logits as they came, when logprobs are wanted of an edited row
  VocabScan scan;
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

void Restrict(const SampleRow& row, float* logits, int64_t vocab, const VocabScan& scan) {
  for (const int32_t token : row.banned_tokens) {
    if (token >= 0 && token < vocab) Forbid(logits[token]);
  }
  if (row.mask == nullptr) return;
  scan.Forbid(logits, vocab, row.mask);
}

// The last token of the smallest set of best candidates whose weights reach `target`, by quickselect over weights:
// linear on average where a sort is not. Reorders `order`.
TokenLogprob FindLastKept(std::vector<TokenLogprob>& order, double target) {
  size_t begin = 0, end = order.size();
  double reached = 0;  // by the candidates before begin
  while (end - begin > 32) {
    TokenLogprob a = order[begin], b = order[begin + (end - begin) / 2], c = order[end - 1];
    if (IsBetter(b, a)) std::swap(a, b);
    if (IsBetter(c, b)) b = IsBetter(c, a) ? a : c;
    // Everything better than the middle of the three, which itself stays on the other side.
    const auto middle =
        std::partition(order.begin() + static_cast<ptrdiff_t>(begin), order.begin() + static_cast<ptrdiff_t>(end),
                       [&](const TokenLogprob& candidate) { return IsBetter(candidate, b); });
    double mass = 0;
    for (auto it = order.begin() + static_cast<ptrdiff_t>(begin); it != middle; ++it) mass += it->logprob;
    const size_t split = static_cast<size_t>(middle - order.begin());
    if (reached + mass >= target) {
      end = split;
    } else {
      reached += mass;
      begin = split;
    }
  }
  std::sort(order.begin() + static_cast<ptrdiff_t>(begin), order.begin() + static_cast<ptrdiff_t>(end), IsBetter);
  while (begin + 1 < end && reached + order[begin].logprob < target) reached += order[begin++].logprob;
  return order[begin];
}

// What the filters leave, as weights in order of id.
absl::Span<TokenLogprob> Filter(const SampleRow& row, int64_t vocab, Scratch& scratch) {
  VocabScan& scan = scratch.scan;
  float threshold = kNever;
  if (row.min_p > 0) threshold = scan.largest() + row.temperature * std::log(row.min_p);
  const bool has_top_k = row.top_k > 0 && row.top_k < vocab;
  double total = 0;  // 0: that of the candidates
  if (row.top_p < 1 && !has_top_k && row.min_p <= 0) {
    // Tokens below half of (1 - p) / V of the total weigh less than half of 1 - p together: top-p never gets to them.
    total = scan.SumWeights(row.temperature);
    const double least = 0.5 * (1.0 - row.top_p) * total / static_cast<double>(vocab);
    threshold = std::nextafter(static_cast<float>(scan.largest() + row.temperature * std::log(least)), kNever);
  }
  const absl::Span<TokenLogprob> kept = scan.Collect(threshold, has_top_k ? row.top_k : 0);
  scan.Weigh(kept, row.temperature);
  if (row.top_p >= 1) return kept;
  if (total == 0) {
    for (const TokenLogprob& candidate : kept) total += candidate.logprob;
  }
  scratch.order.assign(kept.begin(), kept.end());
  const TokenLogprob last = FindLastKept(scratch.order, row.top_p * total);
  const auto end = std::remove_if(kept.begin(), kept.end(),
                                  [&](const TokenLogprob& candidate) { return IsBetter(last, candidate); });
  return kept.first(static_cast<size_t>(end - kept.begin()));
}

int32_t Draw(const SampleRow& row, int64_t vocab, Scratch& scratch) {
  const double noise = UniformNoise(row.seed, row.position);
  if (row.top_p >= 1 && row.min_p <= 0 && (row.top_k <= 0 || row.top_k >= vocab)) {
    const double total = scratch.scan.SumWeights(row.temperature);
    return scratch.scan.FindAtWeight(noise * total, row.temperature);
  }
  const absl::Span<const TokenLogprob> kept = Filter(row, vocab, scratch);
  double total = 0;
  for (const TokenLogprob& candidate : kept) total += candidate.logprob;
  double left = noise * total;
  int32_t last = -1;
  for (const TokenLogprob& candidate : kept) {
    if (candidate.logprob == 0) continue;
    last = candidate.token;
    left -= candidate.logprob;
    if (left < 0) return last;
  }
  return last;
}

bool IsEdited(const SampleRow& row) {
  return row.repetition_penalty != 1 || row.presence_penalty != 0 || row.frequency_penalty != 0 ||
         !row.logit_bias.empty() || !row.banned_tokens.empty() || row.mask != nullptr;
}

void SampleOne(const SampleRow& row, float* logits, int64_t vocab, SampleResult& result, Scratch& scratch) {
  const bool wants_logprobs = row.num_top_logprobs >= 0;
  const float* raw = logits;
  if (wants_logprobs && IsEdited(row)) {
    scratch.raw.assign(logits, logits + vocab);
    raw = scratch.raw.data();
  }
  for (const TokenLogprob& bias : row.logit_bias) {
    if (bias.token >= 0 && bias.token < vocab) logits[bias.token] += bias.logprob;
  }
  Penalize(row, logits, vocab, scratch);
  Restrict(row, logits, vocab, scratch.scan);
  const int32_t best = scratch.scan.FindLargest(logits, vocab);
  result.is_failed = best < 0;
  result.token = best;
  if (best >= 0 && row.temperature > 0) result.token = Draw(row, vocab, scratch);
  if (wants_logprobs && result.token >= 0) FillLogprobs(raw, vocab, row.num_top_logprobs, scratch.scan, result);
}

}  // namespace

void Sample(const SampleArgs& args, const OpContext& context) {
  MILLRACE_CHECK(args.rows.size() == args.results.size(), "one result a row");
  const int64_t num_rows = static_cast<int64_t>(args.rows.size());
  context.pool.ParallelForChunks(num_rows, 1, [&](int64_t begin, int64_t end, int /*worker*/) {
    thread_local Scratch scratch;
    scratch.scan.Reserve(args.logits.cols, context.path);
    for (int64_t r = begin; r < end; ++r) {
      const SampleRow& row = args.rows[static_cast<size_t>(r)];
      float* logits = static_cast<float*>(args.logits.data) + row.row * args.logits.stride;
      SampleOne(row, logits, args.logits.cols, args.results[static_cast<size_t>(r)], scratch);
    }
  });
}

}  // namespace millrace::cpu
