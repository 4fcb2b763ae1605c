// SPDX-License-Identifier: Apache-2.0
#pragma once
// GrammarMatcher: how far one sequence is in its grammar. Owned by whoever runs the sequence, one thread; copies are
// cheap. It keeps no text: after its automaton was trimmed, it is made anew and fed the tokens again.
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "engine/grammar/automaton.h"

namespace millrace {

class GrammarMatcher {
 public:
  explicit GrammarMatcher(std::shared_ptr<GrammarAutomaton> automaton)
      : automaton_(std::move(automaton)), state_(automaton_->start()), generation_(automaton_->generation()) {}

  // False: the token may not come; the matcher is dead afterwards.
  bool Accept(int32_t token) {
    state_ = automaton_->AfterToken(state_, token);
    ++num_tokens_;
    return !is_dead();
  }
  bool is_dead() const { return state_ == GrammarAutomaton::kDead; }
  bool CanEnd() const { return automaton_->can_end(state_); }
  // Whether nothing is forbidden but to end where CanEnd() is false.
  bool AllowsAll() const { return !is_dead() && automaton_->AllowsAll(state_); }
  // Writes the allowed tokens, without those that end the sequence. REQUIRES: as many words as the vocabulary's masks.
  void FillMask(std::span<uint32_t> mask) const;
  int32_t num_tokens() const { return num_tokens_; }
  // False after a Trim() of the automaton.
  bool is_current() const { return generation_ == automaton_->generation(); }

 private:
  std::shared_ptr<GrammarAutomaton> automaton_;
  int32_t state_;
  int64_t generation_;
  int32_t num_tokens_ = 0;
};

}  // namespace millrace
