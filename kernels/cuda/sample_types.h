// SPDX-License-Identifier: Apache-2.0
#pragma once
// What sampling reads and writes in device memory: plain structs, filled on the host and copied. No device code.
#include <cstdint>

namespace millrace::cuda {

constexpr int kMaxTopLogprobs = 20;
constexpr int64_t kMaxSampledVocab = int64_t{1} << 19;

// How one row's next token is drawn, in the order of SampleRow in kernels/ops.h: bias, penalties, mask and bans,
// temperature, then min-p, top-k, top-p.
struct DeviceSampleRow {
  int32_t row = -1;       // of logits, no two alike; negative: padding, nothing is written
  float temperature = 1;  // 0: greedy (lowest id wins a tie)
  int32_t top_k = 0;      // 0: off
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;  // over prompt and output tokens
  float presence_penalty = 0;    // over output tokens
  float frequency_penalty = 0;   // over output tokens
  uint64_t seed = 0;             // noise is a function of (seed, position)
  uint64_t position = 0;
  // Its lists lie one behind the other in SampleLaunch::tokens from first_token: biased, banned, prompt, output tokens.
  // Prompt and output may be left out while no penalty is on. Ids outside the vocabulary are passed over.
  int32_t first_token = 0;
  int32_t num_biased = 0;
  int32_t num_banned = 0;
  int32_t num_prompt = 0;
  int32_t num_output = 0;
  int32_t first_bias = 0;  // in SampleLaunch::biases: num_biased numbers added to the logits of the biased tokens
  int32_t mask_row = -1;   // of SampleLaunch::masks; negative: every token is allowed
  int32_t num_top_logprobs = -1;  // -1: no logprob wanted; 0: the drawn token's; n <= kMaxTopLogprobs: and the n best
};

struct DeviceSampleResult {
  int32_t token = -1;
  int32_t is_failed = 0;  // 1: every token masked, or a logit that is not a number
  float logprob = 0;      // of the raw logits; written when wanted, as is rank
  int32_t rank = 0;       // how many raw logits are at least the token's own
};

struct DeviceTokenLogprob {
  int32_t token = -1;
  float logprob = 0;
};

}  // namespace millrace::cuda
