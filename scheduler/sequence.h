// SPDX-License-Identifier: Apache-2.0
#pragma once
// A request's progress: what is known, what is computed, where it lies. Owned by the scheduler; engine thread only.
//
//   0 .......... num_computed .......... num_computed + num_planned .......... tokens.size()
//   in pages     |-- in the latest plan --|                                    known, later
//
// Once a plan is made ahead of it, a step in flight counts as computed: what it draws is the last of `tokens`, unknown.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "scheduler/plan.h"
#include "scheduler/prefix_index.h"
#include "scheduler/request.h"

namespace millrace {

struct TenantAccount;

struct Sequence {
  // Constant after Add.
  Request request;
  uint64_t arrival = 0;  // counts requests as they came; breaks every tie
  int32_t num_prompt_tokens = 0;
  int32_t max_tokens = 0;  // prompt and output together, after all caps
  bool is_long = false;    // its prompt takes more than a chunk
  TenantAccount* tenant = nullptr;

  std::vector<int32_t> tokens;        // prompt, then output; the last is kUnknownToken while it is being drawn
  std::vector<PageId> pages;          // cover [0, num_computed + num_planned), a reference each
  std::vector<PageHash> page_hashes;  // of the first full pages of `tokens`; grows when needed
  int32_t num_named_pages = 0;        // full pages offered to the prefix index so far
  int32_t num_computed = 0;
  int32_t num_planned = 0;          // rows in the latest plan, while they do not count as computed
  int32_t plan_index = -1;          // its place in the latest plan that it is part of
  int32_t num_charged = 0;          // tokens its tenant paid for: recomputing is free
  int32_t num_prompt_logprobs = 0;  // given to the client so far
  int32_t num_cached_tokens = 0;    // found in pages at first admission
  int32_t num_tokens_at_start = 0;  // known when it last came to run
  bool is_running = false;          // else it waits
  bool is_leaving = false;          // about to be displaced
  bool is_drawing = false;          // a step in flight, counted as computed, draws its next token or embedding
  bool was_admitted = false;
  absl::Time admitted = absl::InfinitePast();
  bool had_event = false;

  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_remaining() const { return num_tokens() - num_computed; }
  // One row brings it up to date: a decode (or a prompt's very last row).
  bool is_decoding() const { return num_computed > 0 && num_remaining() == 1; }
  int32_t num_output_tokens() const { return num_tokens() - num_prompt_tokens; }
  // Whatever is drawn, it is the last.
  bool ends_when_drawn() const {
    return is_drawing && (request.kind == Request::Kind::kEmbed || num_tokens() >= max_tokens);
  }
  // Prompt log-probabilities come only from computed rows, so pages found would lose them.
  bool may_reuse() const {
    return request.sampling.num_prompt_logprobs < 0 || num_prompt_logprobs >= num_prompt_tokens - 1;
  }
};

// Who goes first: lower priority, then earlier arrival.
struct BetterSequence {
  bool operator()(const Sequence* a, const Sequence* b) const {
    if (a->request.priority != b->request.priority) return a->request.priority < b->request.priority;
    return a->arrival < b->arrival;
  }
};

}  // namespace millrace
