// SPDX-License-Identifier: Apache-2.0
#pragma once
// What enters a step and what leaves it: plain data between Scheduler::Plan, the runner and Scheduler::Commit.
// Engine thread only. Requests are there until the plan is committed or aborted, even if they are cancelled meanwhile;
// spans point into the scheduler's sequences and hold until the next Plan, Commit or Abort.
#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "scheduler/request.h"

namespace millrace {

using PageId = int32_t;

inline constexpr int32_t kUnknownToken = -1;  // drawn by a step that is still being computed

// One sequence's part of a step:  tokens [first_position, first_position + num_tokens) are computed;
//   0 ........ first_position ........ first_position + num_tokens ........ all tokens known
//   in pages   |-- computed now --|                          later
struct PlannedSequence {
  RequestId id;
  const Request* request = nullptr;
  int32_t first_position = 0;
  int32_t num_tokens = 0;            // >= 1
  absl::Span<const int32_t> tokens;  // prompt and output so far; the planned slice lies within
  int32_t num_prompt_tokens = 0;     // tokens[0, num_prompt_tokens) is the prompt
  absl::Span<const PageId> pages;    // covers [0, first_position + num_tokens)
  bool samples = false;              // the last planned row's logits give the next token (or the embedding)
  // >= 0: the last of `tokens` is kUnknownToken; the plan before this one draws it, as its sequence of this index.
  int32_t drawn_by = -1;
};

struct StepPlan {
  uint64_t step = 0;
  std::vector<PlannedSequence> sequences;  // decodes first, then prefill chunks
  int32_t num_rows = 0;                    // sum of num_tokens, <= the token budget
  bool empty() const { return sequences.empty(); }
};

struct TopLogprob {
  int32_t token = -1;
  float logprob = 0;
};

// A token with the log-probabilities that were asked for.
struct TokenResult {
  int32_t token = -1;
  float logprob = 0;
  int32_t rank = 0;             // 1-based rank among raw logits; 0 when not asked for
  std::vector<TopLogprob> top;  // best first; empty when not asked for
};

// One per PlannedSequence, in the plan's order.
struct SequenceResult {
  bool is_failed = false;                    // the row's logits were unusable: the request finishes with kError
  TokenResult sampled;                       // token -1 when nothing was sampled
  std::vector<TokenResult> prompt_logprobs;  // for planned prompt rows with a known next prompt token, if asked for
  std::vector<float> embedding;              // kEmbed requests, when their last row was computed
};

struct StepResult {
  uint64_t step = 0;
  std::vector<SequenceResult> sequences;
};

// What a request's sink learns from a step, in order, the last one with a finish reason.
struct TokenEvent {
  RequestId id;
  std::vector<TokenResult> tokens;  // new output tokens (usually one; may be none)
  std::vector<TokenResult> prompt_logprobs;
  std::vector<float> embedding;
  FinishReason finish = FinishReason::kNone;
  int32_t matched_stop_token = -1;             // kStop: the stop token that ended it (not among `tokens`' text)
  int32_t num_cached_tokens = 0;               // prompt tokens found in pages at first admission
  bool is_first = false;                       // the first event after the request was first scheduled
  absl::Time admitted = absl::InfinitePast();  // the time given to the Plan that first scheduled it
};

}  // namespace millrace
