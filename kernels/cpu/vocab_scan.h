// SPDX-License-Identifier: Apache-2.0
#pragma once
// The passes over a vocabulary that sampling and logprobs share, plain or fast by the path chosen at start, and the
// memory they need. One VocabScan per thread, grown to the vocabulary once; not shared.
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/cpu/sample_kernels.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace millrace::cpu {

// Best first: the larger number, then the lower id.
inline bool IsBetter(const TokenLogprob& a, const TokenLogprob& b) {
  return a.logprob != b.logprob ? a.logprob > b.logprob : a.token < b.token;
}

class VocabScan {
 public:
  void Reserve(int64_t vocab, CpuPath path);

  // The lowest id of the largest logit; -1 when one is NaN or plus infinity, or all are minus infinity. Call first:
  // the members below look at the same row. REQUIRES: Reserve.
  int32_t FindLargest(const float* logits, int64_t vocab);

  // Sum of e^((logit - largest) / temperature) over the row.
  double SumWeights(float temperature);
  // The first id whose sum of weights, in order of id, exceeds `left`. REQUIRES: SumWeights with this temperature.
  int32_t FindAtWeight(double left, float temperature);
  // Ids and logits (as `logprob`) at or above the threshold and among the top_k best (0: no such limit; what ties with
  // the last stays), in order of id.
  absl::Span<TokenLogprob> Collect(float threshold, int64_t top_k);
  // Turns the logits collected into weights.
  void Weigh(absl::Span<TokenLogprob> collected, float temperature);
  int64_t CountAtLeast(float threshold) const;
  // Minus infinity where the mask's bit is clear; NaN stays.
  void Forbid(float* logits, int64_t vocab, const uint32_t* mask) const;

  float largest() const { return largest_; }

 private:
  int64_t num_blocks() const { return (vocab_ + kSampleBlock - 1) / kSampleBlock; }
  float KthLargest(const float* values, int64_t count, int64_t k);

  SampleKernels kernels_;
  const float* logits_ = nullptr;
  int64_t vocab_ = 0;
  float largest_ = 0;
  std::vector<float> maxima_, sums_;     // per block
  std::vector<float> values_, ordered_;  // [V]
  std::vector<int32_t> ids_;
  std::vector<TokenLogprob> collected_;
};

}  // namespace millrace::cpu
