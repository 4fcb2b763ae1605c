// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the ops are told of a step: its rows, its sequences, and the most that any step has. Plain data of the engine
// thread; letters as in kernels/ops.h.
#include <cstdint>

#include "absl/types/span.h"

namespace millrace {

// One sequence's part of a step. Its KV (context and this step's rows) is already appended.
struct AttentionSequence {
  int32_t first_row = 0;  // its rows are [first_row, first_row + num_rows) of q
  int32_t num_rows = 0;
  int32_t context_tokens = 0;      // tokens before the first row; row r sees context_tokens + r + 1 tokens
  const int32_t* pages = nullptr;  // page numbers, ceil((context + rows) / page_tokens) of them
};

// A token that the host does not know yet: what row `index` of those the step before gave to Sample draws.
constexpr int32_t DrawnToken(int32_t index) { return -1 - index; }

// The rows of a step, laid out for the ops. Spans belong to the caller and hold until the step is ended.
struct StepInputs {
  absl::Span<const int32_t> tokens;     // [T], ids or DrawnToken
  absl::Span<const int32_t> positions;  // [T]
  absl::Span<const int64_t> slots;      // [T]
  absl::Span<const AttentionSequence> sequences;
};

// The most that any step has, so that scratch can be made before the first one.
struct StepLimits {
  int64_t max_rows = 0;
  int64_t max_logit_rows = 0;
  int64_t max_sequences = 0;
  int64_t max_sequence_pages = 0;  // pages of one sequence
  int64_t max_inputs = 0;          // K of any matmul
  int64_t max_outputs = 0;         // N of any matmul
  int64_t vocab_tokens = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int page_tokens = 16;
  int32_t window_tokens = 0;
  int num_expert_choices = 0;  // experts of a row; 0: there are none
  int num_layers = 0;          // how many kernels a step launches follows from it
};

}  // namespace millrace
