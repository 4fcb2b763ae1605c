// SPDX-License-Identifier: Apache-2.0
#pragma once
// A model of one line: the next token is a hash of the whole history, read back THROUGH the page table. Each slot keeps
// the token, position and tenant that were computed into it, so a page used wrongly shows as a wrong token or a
// recorded fault. Like a real step it writes all rows before it reads any. Test thread only.
#include <algorithm>
#include <string>
#include <vector>

#include "scheduler/scheduler.h"

namespace millrace {

class FakeModel {
 public:
  static constexpr int32_t kVocabTokens = 97;
  static constexpr int32_t kPoison = -7;  // what a failed step leaves behind; reading it gives unusable logits

  explicit FakeModel(const SchedulerConfig& config)
      : page_tokens_(config.page_tokens), slots_(size_t{1} * config.num_pages * config.page_tokens) {}

  // Steps run in the order of their plans; tokens that a plan does not know come from the step before.
  StepResult Run(const StepPlan& plan) {
    for (const PlannedSequence& sequence : plan.sequences) Write(sequence, sequence.num_tokens, {});
    StepResult result;
    result.step = plan.step;
    for (const PlannedSequence& sequence : plan.sequences) result.sequences.push_back(Read(sequence));
    drawn_.clear();
    for (const SequenceResult& sequence : result.sequences) drawn_.push_back(sequence.sampled.token);
    return result;
  }

  // A step that broke off: half of each sequence's rows were written. To read one of the others is a fault.
  void RunAndBreak(const StepPlan& plan) {
    for (const PlannedSequence& sequence : plan.sequences) Write(sequence, sequence.num_tokens / 2, {});
  }

  // As if this sequence's rows had turned into NaN.
  void Poison(const PlannedSequence& sequence) { Write(sequence, 0, {.token = kPoison}); }

  static int32_t NextToken(const std::vector<int32_t>& history, uint64_t seed) {
    uint64_t hash = seed * 0x9e3779b97f4a7c15ull + 1;
    for (int32_t token : history) hash = (hash ^ static_cast<uint64_t>(token + 1)) * 0x100000001b3ull + (hash >> 29);
    return static_cast<int32_t>((hash >> 17) % kVocabTokens);
  }

  // What the request gives when it is alone in the world.
  static std::vector<int32_t> Solo(const Request& request, int32_t max_model_tokens) {
    std::vector<int32_t> history = request.prompt_tokens;
    std::vector<int32_t> output;
    while (static_cast<int32_t>(output.size()) < request.max_new_tokens &&
           static_cast<int32_t>(history.size()) < max_model_tokens) {
      const int32_t token = NextToken(history, request.sampling.seed);
      history.push_back(token);
      output.push_back(token);
      const bool may_stop = !request.ignore_eos && static_cast<int32_t>(output.size()) > request.min_new_tokens;
      for (int32_t stop : request.stop_token_ids) {
        if (may_stop && stop == token) return output;
      }
    }
    return output;
  }

  const std::string& fault() const { return fault_; }  // empty: none so far
  int64_t num_rows() const { return num_rows_; }

 private:
  struct Slot {
    int32_t token = -1;
    int32_t position = -1;
    uint64_t salt = 0;
  };

  int32_t TokenAt(const PlannedSequence& sequence, int32_t position) {
    const int32_t token = sequence.tokens[position];
    if (token != kUnknownToken) return token;
    if (sequence.drawn_by >= 0 && sequence.drawn_by < static_cast<int32_t>(drawn_.size())) {
      return drawn_[sequence.drawn_by];
    }
    fault_ = "nobody draws an unknown token";
    return token;
  }

  Slot& At(const PlannedSequence& sequence, int32_t position) {
    return slots_[size_t{1} * sequence.pages[position / page_tokens_] * page_tokens_ + position % page_tokens_];
  }

  // Rows before `num_good` are written, the others become `rubbish`.
  void Write(const PlannedSequence& sequence, int32_t num_good, Slot rubbish) {
    num_rows_ += sequence.num_tokens;
    for (int32_t i = 0; i < sequence.num_tokens; ++i) {
      const int32_t position = sequence.first_position + i;
      Slot& slot = At(sequence, position);
      slot = i < num_good ? Slot{TokenAt(sequence, position), position, sequence.request->tenant.salt} : rubbish;
    }
  }

  SequenceResult Read(const PlannedSequence& sequence) {
    SequenceResult result;
    std::vector<int32_t> history;
    const int32_t end = sequence.first_position + sequence.num_tokens;
    for (int32_t position = 0; position < end; ++position) {
      const Slot& slot = At(sequence, position);
      history.push_back(slot.token);
      if (slot.token == kPoison) {
        result.is_failed = true;
        continue;
      }
      if (slot.position != position) fault_ = "a slot holds another position";
      if (slot.salt != sequence.request->tenant.salt) fault_ = "a slot was computed for another tenant";
      if (slot.token != TokenAt(sequence, position)) fault_ = "a slot holds another token";
    }
    if (sequence.request->sampling.num_prompt_logprobs >= 0) {
      for (int32_t p = sequence.first_position; p < std::min(end, sequence.num_prompt_tokens - 1); ++p) {
        result.prompt_logprobs.push_back({.token = sequence.tokens[p + 1], .logprob = -1.0f * p});
      }
    }
    if (!sequence.samples) {
      result.is_failed = false;  // no logits, nobody notices yet
    } else if (sequence.request->kind == Request::Kind::kEmbed) {
      result.embedding = {static_cast<float>(NextToken(history, 0))};
    } else {
      result.sampled.token = NextToken(history, sequence.request->sampling.seed);
    }
    return result;
  }

  const int32_t page_tokens_;
  std::vector<Slot> slots_;
  std::vector<int32_t> drawn_;  // by the latest step's sequences
  std::string fault_;
  int64_t num_rows_ = 0;
};

}  // namespace millrace
