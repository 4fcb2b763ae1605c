// SPDX-License-Identifier: Apache-2.0
#include "engine/grammar/grammar.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace millrace {
namespace {

constexpr int32_t kNoWay = 1 << 20;
constexpr size_t kMaxEdgesPerState = 12;  // on average

}  // namespace

std::string Grammar::Identity() const {
  std::string out;
  const auto add = [&out](int64_t number) {
    for (int shift = 0; shift < 64; shift += 8) out += static_cast<char>(number >> shift);
  };
  add(start_);
  add(num_states());
  for (int32_t state = 0; state < num_states(); ++state) {
    add(is_end(state));
    add(static_cast<int64_t>(edges(state).size()));
    for (const GrammarEdge& edge : edges(state)) {
      add((int64_t{edge.low} << 24) | (int64_t{edge.high} << 8) | static_cast<int64_t>(edge.kind));
      add((int64_t{edge.rule} << 32) | static_cast<uint32_t>(edge.target));
    }
  }
  add(static_cast<int64_t>(rule_starts_.size()));
  for (const int32_t start : rule_starts_) add(start);
  for (const std::string& marker : markers_) {
    add(static_cast<int64_t>(marker.size()));
    out += marker;
  }
  return out;
}

int32_t GrammarBuilder::NewState() {
  if (num_states_ >= max_states_) {
    is_full_ = true;
    return 0;
  }
  return num_states_++;
}

int32_t GrammarBuilder::NewRule() {
  const int32_t start = NewState();
  rules_.emplace_back(start, NewState());
  return static_cast<int32_t>(rules_.size()) - 1;
}

void GrammarBuilder::Add(int32_t from, GrammarEdge edge) {
  if (edges_.size() >= static_cast<size_t>(max_states_) * kMaxEdgesPerState) is_full_ = true;
  if (!is_full_) edges_.push_back({from, edge});
}

void GrammarBuilder::Symbols(int32_t from, std::pair<int, int> range, int32_t to) {
  Add(from, {.kind = GrammarEdge::Kind::kSymbols,
             .low = static_cast<GrammarSymbol>(range.first),
             .high = static_cast<GrammarSymbol>(range.second),
             .target = to});
}

void GrammarBuilder::Byte(int32_t from, char byte, int32_t to) {
  const int symbol = static_cast<uint8_t>(byte);
  Symbols(from, {symbol, symbol}, to);
}

void GrammarBuilder::Empty(int32_t from, int32_t to) { Add(from, {.target = to}); }

void GrammarBuilder::Call(int32_t from, int32_t rule, int32_t to) {
  Add(from, {.kind = GrammarEdge::Kind::kCall, .rule = rule, .target = to});
}

int32_t GrammarBuilder::Literal(int32_t from, std::string_view text) {
  for (const char byte : text) {
    if (is_full_) break;
    const int32_t next = NewState();
    Byte(from, byte, next);
    from = next;
  }
  return from;
}

GrammarSymbol GrammarBuilder::MarkerSymbol(const std::string& marker) {
  const auto found = std::find(markers_.begin(), markers_.end(), marker);
  const auto index = found - markers_.begin();
  if (found == markers_.end()) {
    MILLRACE_CHECK(index < kMaxMarkers, "a grammar has few markers");
    markers_.push_back(marker);
  }
  return static_cast<GrammarSymbol>(kFirstMarker + index);
}

void GrammarBuilder::Marker(int32_t from, const std::string& marker, int32_t to) {
  const int symbol = MarkerSymbol(marker);
  Symbols(from, {symbol, symbol}, to);
  LiteralTo(from, marker, to);
}

// The automaton of Knuth, Morris and Pratt: state i has read the marker's first i bytes.
void GrammarBuilder::TextUntil(int32_t from, const std::string& marker, const TextSpan& span) {
  const int found = MarkerSymbol(marker);
  std::vector<int32_t> states = {span.not_first.empty() ? from : NewState()};
  for (size_t i = 1; i < marker.size(); ++i) states.push_back(NewState());
  states.push_back(span.behind);
  const auto next = [&](size_t matched, int byte) {
    std::string text = marker.substr(0, matched) + static_cast<char>(byte);
    while (!marker.starts_with(text)) text.erase(0, 1);
    return states[text.size()];
  };
  const auto emit = [&](int32_t state, size_t matched, std::string_view excluded) {
    const auto is_excluded = [&](int byte) { return excluded.find(static_cast<char>(byte)) != std::string_view::npos; };
    for (int low = 0; low < 256;) {
      const int32_t target = next(matched, low);
      int high = low;
      while (high < 255 && next(matched, high + 1) == target && !is_excluded(high) && !is_excluded(high + 1)) ++high;
      if (!is_excluded(low)) Symbols(state, {low, high}, target);
      low = high + 1;
    }
    for (int symbol = kFirstMarker; symbol <= kOtherControl; ++symbol) {
      Symbols(state, {symbol, symbol}, symbol == found ? span.behind : states[0]);
    }
    if (span.end >= 0) Empty(state, span.end);
  };
  for (size_t i = 0; i < marker.size(); ++i) emit(states[i], i, {});
  if (states[0] != from) emit(from, 0, span.not_first);
}

absl::StatusOr<std::shared_ptr<const Grammar>> GrammarBuilder::Build(int32_t root_rule) {
  if (is_full_) return absl::InvalidArgumentError(absl::StrCat("it needs more than ", max_states_, " states"));
  auto grammar = std::make_shared<Grammar>();
  std::sort(edges_.begin(), edges_.end(), [](const Stored& a, const Stored& b) { return a.from < b.from; });
  grammar->first_edge_.assign(static_cast<size_t>(num_states_) + 1, 0);
  for (const Stored& stored : edges_) {
    grammar->edges_.push_back(stored.edge);
    ++grammar->first_edge_[static_cast<size_t>(stored.from) + 1];
  }
  for (size_t s = 1; s < grammar->first_edge_.size(); ++s) grammar->first_edge_[s] += grammar->first_edge_[s - 1];
  grammar->is_end_.assign(static_cast<size_t>(num_states_), 0);
  for (const auto& [start, end] : rules_) {
    grammar->rule_starts_.push_back(start);
    grammar->is_end_[static_cast<size_t>(end)] = 1;
  }
  grammar->start_ = start(root_rule);
  grammar->markers_ = markers_;
  if (HasLeftRecursion(*grammar)) {
    return absl::InvalidArgumentError("a part refers to itself without a value in between");
  }
  ComputeHeights(*grammar);
  if (grammar->height(grammar->start_) > kMaxGrammarDepth) {
    return absl::InvalidArgumentError(
        absl::StrCat("no value that is nested at most ", kMaxGrammarDepth, " deep satisfies it"));
  }
  return grammar;
}

// Whether some rule can be called again before a byte is read: following its calls would never end.
bool GrammarBuilder::HasLeftRecursion(const Grammar& grammar) const {
  std::vector<std::vector<int32_t>> first_calls(rules_.size());
  std::vector<int32_t> num_callers(rules_.size(), 0);
  std::vector<int32_t> seen(static_cast<size_t>(num_states_), -1);
  for (size_t rule = 0; rule < rules_.size(); ++rule) {
    std::vector<int32_t> open = {rules_[rule].first};
    while (!open.empty()) {
      const int32_t state = open.back();
      open.pop_back();
      if (std::exchange(seen[static_cast<size_t>(state)], static_cast<int32_t>(rule)) == static_cast<int32_t>(rule)) {
        continue;
      }
      for (const GrammarEdge& edge : grammar.edges(state)) {
        if (edge.kind == GrammarEdge::Kind::kEmpty) open.push_back(edge.target);
        if (edge.kind != GrammarEdge::Kind::kCall) continue;
        first_calls[rule].push_back(edge.rule);
        ++num_callers[static_cast<size_t>(edge.rule)];
      }
    }
  }
  // Takes away rules that nobody left calls: what stays is on a cycle or called from one.
  std::vector<size_t> free;
  for (size_t rule = 0; rule < rules_.size(); ++rule) {
    if (num_callers[rule] == 0) free.push_back(rule);
  }
  size_t num_taken = 0;
  for (; !free.empty(); ++num_taken) {
    const size_t rule = free.back();
    free.pop_back();
    for (const int32_t called : first_calls[rule]) {
      if (--num_callers[static_cast<size_t>(called)] == 0) free.push_back(static_cast<size_t>(called));
    }
  }
  return num_taken < rules_.size();
}

// Backwards from the ends, one depth of calls after another.
void GrammarBuilder::ComputeHeights(Grammar& grammar) const {
  const auto num_states = static_cast<size_t>(num_states_);
  std::vector<std::vector<const Stored*>> incoming(num_states);
  // A call with nothing behind it costs no depth: it leads to its rule's start, not to the state behind.
  const auto is_tail = [&](const GrammarEdge& edge) {
    return edge.kind == GrammarEdge::Kind::kCall && grammar.is_end(edge.target);
  };
  for (const Stored& stored : edges_) {
    const int32_t to = is_tail(stored.edge) ? grammar.rule_start(stored.edge.rule) : stored.edge.target;
    incoming[static_cast<size_t>(to)].push_back(&stored);
  }
  std::vector<int32_t>& heights = grammar.heights_;
  heights.assign(num_states, kNoWay);
  std::vector<int32_t> open;
  for (const auto& [start, end] : rules_) {
    heights[static_cast<size_t>(end)] = 0;
    open.push_back(end);
  }
  const auto height_of_rule = [&](int32_t rule) { return heights[static_cast<size_t>(grammar.rule_start(rule))]; };
  const auto reach = [&](int32_t state, int32_t height) {
    if (heights[static_cast<size_t>(state)] != kNoWay) return;
    heights[static_cast<size_t>(state)] = height;
    open.push_back(state);
  };
  for (int32_t height = 0; height <= kMaxGrammarDepth; ++height) {
    for (const Stored& stored : edges_) {
      const GrammarEdge& edge = stored.edge;
      if (edge.kind == GrammarEdge::Kind::kCall && !is_tail(edge) && height_of_rule(edge.rule) == height - 1 &&
          heights[static_cast<size_t>(edge.target)] <= height) {
        reach(stored.from, height);
      }
    }
    while (!open.empty()) {
      const int32_t state = open.back();
      open.pop_back();
      for (const Stored* stored : incoming[static_cast<size_t>(state)]) {
        const bool is_call = stored->edge.kind == GrammarEdge::Kind::kCall && !is_tail(stored->edge);
        if (!is_call || height_of_rule(stored->edge.rule) < height) {
          reach(stored->from, height);
        }
      }
    }
  }
}

}  // namespace millrace
