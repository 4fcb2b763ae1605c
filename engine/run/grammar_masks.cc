// SPDX-License-Identifier: Apache-2.0
#include "engine/run/grammar_masks.h"

namespace millrace {
namespace {

constexpr size_t kMaxKeptAutomata = 8;

}  // namespace

void GrammarMasks::BeginStep(const StepPlan& plan) {
  ++step_;
  if (entries_.empty()) return;
  for (const PlannedSequence& planned : plan.sequences) {
    if (const auto found = entries_.find(planned.id); found != entries_.end()) found->second.step = step_;
  }
  absl::erase_if(entries_, [this](const auto& entry) { return entry.second.step != step_; });
  absl::erase_if(automata_, [](const auto& entry) { return entry.second.expired(); });
}

// An automaton holds its grammar, so that an address that is found is that grammar's.
std::shared_ptr<GrammarAutomaton> GrammarMasks::FindAutomaton(const std::shared_ptr<const Grammar>& grammar) {
  std::weak_ptr<GrammarAutomaton>& known = automata_[grammar.get()];
  std::shared_ptr<GrammarAutomaton> automaton = known.lock();
  if (automaton == nullptr) known = automaton = std::make_shared<GrammarAutomaton>(grammar, vocabulary_);
  newest_.remove(automaton);
  newest_.push_front(automaton);
  if (newest_.size() > kMaxKeptAutomata) newest_.pop_back();
  return automaton;
}

GrammarMasks::Entry& GrammarMasks::Find(const PlannedSequence& planned) {
  if (const auto found = entries_.find(planned.id); found != entries_.end()) return found->second;
  auto automaton = FindAutomaton(planned.request->grammar);
  Entry entry{.automaton = automaton, .matcher = GrammarMatcher(automaton), .step = step_};
  entry.mask.resize(vocabulary_.num_mask_words());
  return entries_.insert_or_assign(planned.id, std::move(entry)).first->second;
}

const uint32_t* GrammarMasks::Next(const PlannedSequence& planned, absl::Span<const int32_t> output) {
  Entry& entry = Find(planned);
  entry.automaton->Trim();
  GrammarMatcher& matcher = entry.matcher;
  if (!matcher.is_current() || static_cast<size_t>(matcher.num_tokens()) > output.size()) {
    matcher = GrammarMatcher(entry.automaton);
  }
  for (const int32_t token : output.subspan(static_cast<size_t>(matcher.num_tokens()))) matcher.Accept(token);
  matcher.FillMask(entry.mask);
  const bool allows_all = matcher.AllowsAll();
  if (allows_all && matcher.CanEnd()) return nullptr;
  // Whether it may end is the grammar's to say, whatever tokens the client wants to end at.
  for (const int32_t token : planned.request->stop_token_ids) {
    if (token < 0 || token >= vocabulary_.num_ids()) continue;
    uint32_t& word = entry.mask[static_cast<size_t>(token) / 32];
    const uint32_t bit = 1u << (static_cast<uint32_t>(token) % 32);
    if (matcher.CanEnd()) {
      word |= bit;
    } else if (vocabulary_.is_control(token)) {
      word &= ~bit;
    }
  }
  return entry.mask.data();
}

}  // namespace millrace
