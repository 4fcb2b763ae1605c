// SPDX-License-Identifier: Apache-2.0
#pragma once
// GrammarAutomaton: a Grammar made deterministic while it is walked, with the mask of allowed tokens of each state that
// was asked for. A state is a set of stacks of calls; stacks share their frames. Shared by the sequences of one
// grammar; one thread. Memory is bounded (kMax... below): Trim() drops everything, and whoever holds a state then
// begins again from the text.
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/grammar/grammar.h"
#include "engine/grammar/token_vocabulary.h"

namespace millrace {

class GrammarAutomaton {
 public:
  static constexpr int32_t kDead = -1;            // nothing may follow, and it is no end
  static constexpr size_t kMaxStacks = 2048;      // in a state; beyond it the state is dead
  static constexpr size_t kMaxWalkStates = 2048;  // that one mask's computation may visit; beyond it nothing is allowed
  static constexpr size_t kMaxStates = 4096;      // kept by Trim()
  static constexpr size_t kMaxFrames = 1 << 17;   // likewise
  static constexpr size_t kMaxMaskBytes = 8 << 20;  // likewise

  // `vocabulary` outlives it.
  GrammarAutomaton(std::shared_ptr<const Grammar> grammar, const TokenVocabulary& vocabulary);

  int32_t start() const { return start_; }
  // The state behind a symbol, or behind all bytes of a token (kDead where it may not come).
  int32_t Next(int32_t state, GrammarSymbol symbol);
  int32_t AfterToken(int32_t state, int32_t token);
  bool can_end(int32_t state) const { return state != kDead && states_[static_cast<size_t>(state)].can_end; }
  // Tokens that may come next; [num_mask_words], valid until Trim(). REQUIRES: not kDead.
  std::span<const uint32_t> Mask(int32_t state);
  // Whether the mask has every token: then none is needed.
  bool AllowsAll(int32_t state);

  // Forgets all states when there are too many; true if it did. `generation` counts how often.
  bool Trim();
  int64_t generation() const { return generation_; }
  size_t num_states() const { return states_.size(); }

 private:
  static constexpr int32_t kUnknown = -2;
  struct Frame {
    int32_t state;   // of the grammar
    int32_t parent;  // where the rule returns to; -1: the root's
    int32_t depth;
  };
  struct State {
    std::vector<int32_t> stacks;  // top frames, sorted
    bool can_end = false;
    bool allows_all = false;
    std::vector<int32_t> next;  // by symbol, once something was asked
    std::vector<uint32_t> mask;
    int64_t last_walk = 0;
  };

  void Begin();
  int32_t Depth(int32_t frame) const { return frame < 0 ? 0 : frames_[static_cast<size_t>(frame)].depth; }
  bool Fits(int32_t state, int32_t depth) const { return depth + grammar_->height(state) <= kMaxGrammarDepth; }
  int32_t Intern(int32_t state, int32_t parent);
  void Close();
  void Follow(const Frame& frame, const GrammarEdge& edge);
  void Visit(int32_t state, int32_t parent);
  int32_t InternState();
  void ComputeMask(int32_t state);
  bool WalkTrie(int32_t state, std::vector<uint32_t>& mask);

  const std::shared_ptr<const Grammar> grammar_;
  const TokenVocabulary& vocabulary_;
  std::vector<GrammarSymbol> control_symbols_;  // of vocabulary_.controls()
  std::vector<Frame> frames_;
  std::vector<int64_t> visited_;  // by frame: the closure that saw it last
  absl::flat_hash_map<std::pair<int32_t, int32_t>, int32_t> frame_ids_;
  std::vector<State> states_;
  absl::flat_hash_map<std::vector<int32_t>, int32_t> state_ids_;
  size_t mask_bytes_ = 0;
  int32_t start_ = kDead;
  int64_t generation_ = 0;
  int64_t num_closures_ = 0, num_walks_ = 0;
  // Scratch of a closure.
  std::vector<int32_t> open_, stacks_;
  bool can_end_ = false, is_too_large_ = false;
};

}  // namespace millrace
