// SPDX-License-Identifier: Apache-2.0
#pragma once
// Log-probabilities of one row of raw logits; shared by Sample and Logprobs. Stateless, any thread.
#include <cstdint>

#include "kernels/ops.h"

namespace millrace::cpu {

// Fills logprob and rank of result.token and, up to num_top, result.top (best first, ties by lower id).
// log p = logit - log(sum exp(logit)); the rank counts the logits that are at least the token's own.
void FillLogprobs(const float* logits, int64_t vocab, int32_t num_top, SampleResult& result);
// log(sum(exp(logits))), summed in double in index order. NaN when a logit is NaN or none is finite.
double LogSumExp(const float* logits, int64_t vocab);

}  // namespace millrace::cpu
