// SPDX-License-Identifier: Apache-2.0
#pragma once
// Log-probabilities of one row of raw logits; shared by Sample and Logprobs. Stateless, any thread.
#include <cstdint>

#include "kernels/cpu/vocab_scan.h"
#include "kernels/ops.h"

namespace millrace::cpu {

// Fills logprob and rank of result.token and, up to num_top, result.top (best first, ties by lower id); `scan` is the
// thread's, reserved. log p = logit - log(sum exp(logit)); the rank counts the logits that are at least the token's
// own, as vLLM's does. A row with a NaN, an infinity or nothing finite gives NaN for every logprob and ranks as they
// fall.
void FillLogprobs(const float* logits, int64_t vocab, int32_t num_top, VocabScan& scan, SampleResult& result);

}  // namespace millrace::cpu
