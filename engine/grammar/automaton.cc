// SPDX-License-Identifier: Apache-2.0
#include "engine/grammar/automaton.h"

#include <algorithm>

namespace millrace {
namespace {

constexpr size_t kMaxVisits = 1 << 16;  // of one closure

void Allow(std::vector<uint32_t>& mask, int32_t token) {
  mask[static_cast<size_t>(token) / 32] |= 1u << (static_cast<uint32_t>(token) % 32);
}

}  // namespace

GrammarAutomaton::GrammarAutomaton(std::shared_ptr<const Grammar> grammar, const TokenVocabulary& vocabulary)
    : grammar_(std::move(grammar)), vocabulary_(vocabulary) {
  control_symbols_.assign(vocabulary.controls().size(), kOtherControl);
  for (size_t i = 0; i < grammar_->markers().size(); ++i) {
    const auto id = vocabulary.FindControl(grammar_->markers()[i]);
    const auto& controls = vocabulary.controls();
    if (!id.has_value()) continue;
    const auto found = std::lower_bound(controls.begin(), controls.end(), *id) - controls.begin();
    control_symbols_[static_cast<size_t>(found)] = static_cast<GrammarSymbol>(kFirstMarker + i);
  }
  Begin();
}

void GrammarAutomaton::Begin() {
  open_.clear(), stacks_.clear();
  ++num_closures_;
  can_end_ = is_too_large_ = false;
  Visit(grammar_->start(), -1);
  Close();
  start_ = InternState();
}

bool GrammarAutomaton::Trim() {
  if (states_.size() <= kMaxStates && frames_.size() <= kMaxFrames && mask_bytes_ <= kMaxMaskBytes) return false;
  frames_.clear(), visited_.clear(), frame_ids_.clear();
  states_.clear(), state_ids_.clear();
  mask_bytes_ = 0;
  ++generation_;
  Begin();
  return true;
}

int32_t GrammarAutomaton::Intern(int32_t state, int32_t parent) {
  const auto [found, is_new] = frame_ids_.try_emplace({state, parent}, static_cast<int32_t>(frames_.size()));
  if (is_new) {
    frames_.push_back({state, parent, parent < 0 ? 0 : Depth(parent) + 1});
    visited_.push_back(0);
  }
  return found->second;
}

// Adds a stack to the closure unless it was seen or leaves no room for the way to its rule's end.
void GrammarAutomaton::Visit(int32_t state, int32_t parent) {
  if (!Fits(state, parent < 0 ? 0 : Depth(parent) + 1)) return;
  const int32_t frame = Intern(state, parent);
  if (std::exchange(visited_[static_cast<size_t>(frame)], num_closures_) == num_closures_) return;
  open_.push_back(frame);
}

void GrammarAutomaton::Follow(const Frame& frame, const GrammarEdge& edge) {
  if (edge.kind == GrammarEdge::Kind::kEmpty) return Visit(edge.target, frame.parent);
  const int32_t start = grammar_->rule_start(edge.rule);
  // Nothing is left to do after the call: its end is this rule's.
  if (grammar_->is_end(edge.target)) return Visit(start, frame.parent);
  if (!Fits(edge.target, frame.depth) || !Fits(start, frame.depth + 1)) return;
  Visit(start, Intern(edge.target, frame.parent));
}

// From the open frames to all that are reached without reading; those that read are kept.
void GrammarAutomaton::Close() {
  size_t num_visits = 0;
  while (!open_.empty()) {
    const int32_t id = open_.back();
    open_.pop_back();
    const Frame frame = frames_[static_cast<size_t>(id)];  // a copy: frames_ grows
    if (grammar_->is_end(frame.state)) {
      if (frame.parent < 0) {
        can_end_ = true;
      } else {
        const Frame parent = frames_[static_cast<size_t>(frame.parent)];
        Visit(parent.state, parent.parent);
      }
      continue;
    }
    bool reads = false;
    for (const GrammarEdge& edge : grammar_->edges(frame.state)) {
      if (edge.kind == GrammarEdge::Kind::kSymbols) {
        reads = true;
      } else {
        Follow(frame, edge);
      }
    }
    if (reads) stacks_.push_back(id);
    is_too_large_ |= stacks_.size() > kMaxStacks || ++num_visits > kMaxVisits;
    if (is_too_large_) open_.clear();
  }
}

int32_t GrammarAutomaton::InternState() {
  if (is_too_large_ || (stacks_.empty() && !can_end_)) return kDead;
  std::sort(stacks_.begin(), stacks_.end());
  std::vector<int32_t> key = stacks_;
  key.push_back(can_end_ ? -1 : -2);
  const auto [found, is_new] = state_ids_.try_emplace(std::move(key), static_cast<int32_t>(states_.size()));
  if (is_new) states_.push_back({.stacks = stacks_, .can_end = can_end_});
  return found->second;
}

int32_t GrammarAutomaton::Next(int32_t state, GrammarSymbol symbol) {
  if (state == kDead) return kDead;
  State& from = states_[static_cast<size_t>(state)];
  if (from.next.empty()) from.next.assign(kNumGrammarSymbols, kUnknown);
  if (from.next[symbol] != kUnknown) return from.next[symbol];
  open_.clear(), stacks_.clear();
  ++num_closures_;
  can_end_ = is_too_large_ = false;
  for (const int32_t stack : from.stacks) {
    const Frame frame = frames_[static_cast<size_t>(stack)];
    for (const GrammarEdge& edge : grammar_->edges(frame.state)) {
      const bool reads = edge.kind == GrammarEdge::Kind::kSymbols && edge.low <= symbol && symbol <= edge.high;
      if (reads) Visit(edge.target, frame.parent);
    }
  }
  Close();
  const int32_t next = InternState();
  return states_[static_cast<size_t>(state)].next[symbol] = next;  // states_ may have moved
}

int32_t GrammarAutomaton::AfterToken(int32_t state, int32_t token) {
  if (token < 0 || token >= vocabulary_.num_ids()) return kDead;
  if (vocabulary_.is_control(token)) {
    const auto& controls = vocabulary_.controls();
    const auto found = std::lower_bound(controls.begin(), controls.end(), token) - controls.begin();
    return Next(state, control_symbols_[static_cast<size_t>(found)]);
  }
  const std::string_view bytes = vocabulary_.bytes(token);
  if (bytes.empty()) return kDead;
  for (const char byte : bytes) state = Next(state, static_cast<uint8_t>(byte));
  return state;
}

// Depth first over the vocabulary's trie, leaving out what begins with bytes that may not come.
bool GrammarAutomaton::WalkTrie(int32_t state, std::vector<uint32_t>& mask) {
  const auto& nodes = vocabulary_.nodes();
  const auto& tokens = vocabulary_.tokens();
  std::vector<int32_t> path = {state};
  size_t num_states = 0;
  ++num_walks_;
  for (size_t i = 0; i < nodes.size();) {
    const TokenVocabulary::Node& node = nodes[i];
    const int32_t next = Next(path[node.depth], node.byte);
    if (next == kDead) {
      i = node.behind;
      continue;
    }
    // States are counted as this walk meets them, not as they are made: the answer must not depend on other walks.
    int64_t& last_walk = states_[static_cast<size_t>(next)].last_walk;
    if (std::exchange(last_walk, num_walks_) != num_walks_ && ++num_states > kMaxWalkStates) return false;
    for (uint32_t t = 0; t < node.num_tokens; ++t) Allow(mask, tokens[node.first_token + t]);
    path.resize(node.depth + size_t{1});
    path.push_back(next);
    ++i;
  }
  return true;
}

void GrammarAutomaton::ComputeMask(int32_t state) {
  std::vector<uint32_t> mask(vocabulary_.num_mask_words(), 0);
  if (WalkTrie(state, mask)) {
    for (size_t i = 0; i < control_symbols_.size(); ++i) {
      if (Next(state, control_symbols_[i]) != kDead) Allow(mask, vocabulary_.controls()[i]);
    }
  } else {
    mask.assign(mask.size(), 0);
  }
  size_t num_allowed = 0;
  for (const uint32_t word : mask) num_allowed += static_cast<size_t>(__builtin_popcount(word));
  State& stored = states_[static_cast<size_t>(state)];
  stored.allows_all = num_allowed == vocabulary_.tokens().size() + vocabulary_.controls().size();
  mask_bytes_ += mask.size() * sizeof(uint32_t);
  stored.mask = std::move(mask);
}

std::span<const uint32_t> GrammarAutomaton::Mask(int32_t state) {
  if (states_[static_cast<size_t>(state)].mask.empty()) ComputeMask(state);
  return states_[static_cast<size_t>(state)].mask;
}

bool GrammarAutomaton::AllowsAll(int32_t state) {
  Mask(state);
  return states_[static_cast<size_t>(state)].allows_all;
}

}  // namespace millrace
