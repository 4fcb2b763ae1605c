// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a client asked, after text became tokens: immutable once submitted. Plain data, any thread.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace millrace {

class Grammar;  // the engine's: what the output may be

struct RequestId {
  uint64_t value = 0;
  friend bool operator==(RequestId, RequestId) = default;
  template <typename H>
  friend H AbslHashValue(H h, RequestId id) {
    return H::combine(std::move(h), id.value);
  }
};

// Who pays: prefix reuse never crosses `salt`, fairness is weighed by `weight` between `name`s.
struct Tenant {
  std::string name;     // empty: the anonymous tenant
  uint64_t salt = 0;    // mixed into the identity of every KV page
  double weight = 1.0;  // share of the token budget against other tenants, > 0
};

// OpenAI's and vLLM's sampling fields with their meanings and defaults.
struct SamplingParams {
  float temperature = 1.0f;         // [0, 2]; 0: greedy
  int32_t top_k = 0;                // 0: off
  float top_p = 1.0f;               // (0, 1]
  float min_p = 0.0f;               // [0, 1]
  float repetition_penalty = 1.0f;  // (0, 2]
  float presence_penalty = 0.0f;    // [-2, 2]
  float frequency_penalty = 0.0f;   // [-2, 2]
  uint64_t seed = 0;                // chosen at random by the door when the client gave none
  std::vector<std::pair<int32_t, float>> logit_bias;
  int32_t num_top_logprobs = -1;     // -1: none, 0: the drawn token's own, n: and the n best
  int32_t num_prompt_logprobs = -1;  // likewise for prompt tokens
  bool has_penalties() const { return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0; }
};

struct Request {
  RequestId id;  // unique while it lives; given by the engine
  Tenant tenant;
  int32_t priority = 0;                          // lower is served earlier (vLLM's convention)
  absl::Time deadline = absl::InfiniteFuture();  // past it: finished with kDeadline
  std::vector<int32_t> prompt_tokens;            // not empty
  SamplingParams sampling;
  int32_t max_new_tokens = 16;  // >= 1; for kEmbed unused
  int32_t min_new_tokens = 0;   // stop tokens are banned before
  bool ignore_eos = false;
  std::shared_ptr<const Grammar> grammar;  // null: anything may be said; shared by the choices of a request
  std::vector<int32_t> stop_token_ids;     // end-of-sequence ids of the model and the client's own
  enum class Kind : uint8_t { kGenerate, kEmbed } kind = Kind::kGenerate;
  // A conversation that goes on after this request: its pages are kept for a while. 0: none. Never of two tenants.
  uint64_t session = 0;
};

enum class FinishReason : uint8_t { kNone, kStop, kLength, kCancelled, kDeadline, kError };

}  // namespace millrace
