// SPDX-License-Identifier: Apache-2.0
#pragma once
// GrammarMasks: what the sequences of a step may say next. Keeps a matcher for each sequence of the last step that has
// a grammar; one that was away (preempted, say) is read again from its output. Owned by the runner, engine thread only.
#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "engine/grammar/matcher.h"
#include "scheduler/plan.h"

namespace millrace {

class GrammarMasks {
 public:
  // `vocabulary` outlives it.
  explicit GrammarMasks(const TokenVocabulary& vocabulary) : vocabulary_(vocabulary) {}

  // A new step: forgets sequences that are not in the plan.
  void BeginStep(const StepPlan& plan);
  // The mask of a sequence with these output tokens, valid until the next step; null: everything may come. Where
  // nothing may come it is empty: the row fails, and only it.
  const uint32_t* Next(const PlannedSequence& planned, absl::Span<const int32_t> output);

 private:
  struct Entry {
    std::shared_ptr<GrammarAutomaton> automaton;
    GrammarMatcher matcher;
    std::vector<uint32_t> mask;
    uint64_t step = 0;
  };
  Entry& Find(const PlannedSequence& planned);
  std::shared_ptr<GrammarAutomaton> FindAutomaton(const std::shared_ptr<const Grammar>& grammar);

  const TokenVocabulary& vocabulary_;
  uint64_t step_ = 0;
  absl::flat_hash_map<RequestId, Entry> entries_;
  // Shared by the sequences of a grammar; gone with the last of them, but for the newest: whoever comes with the same
  // tools finds their masks.
  absl::flat_hash_map<const Grammar*, std::weak_ptr<GrammarAutomaton>> automata_;
  std::list<std::shared_ptr<GrammarAutomaton>> newest_;
};

}  // namespace millrace
