// SPDX-License-Identifier: Apache-2.0
#pragma once
// Grammar: which texts a sequence may be, as rules over bytes that call each other (a recursive transition network).
// Built once by a GrammarBuilder, constant afterwards, shared by any number of threads. It knows no tokens.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace millrace {

// What an edge reads: a byte, a marker that the vocabulary may hold as one control token, or any other control token.
using GrammarSymbol = uint16_t;
inline constexpr GrammarSymbol kFirstMarker = 256;
inline constexpr int kMaxMarkers = 7;
inline constexpr GrammarSymbol kOtherControl = kFirstMarker + kMaxMarkers;
inline constexpr int kNumGrammarSymbols = kOtherControl + 1;
// Calls within calls that a text may need; a value nested deeper is not allowed.
inline constexpr int kMaxGrammarDepth = 64;

struct GrammarEdge {
  enum class Kind : uint8_t { kSymbols, kEmpty, kCall };
  Kind kind = Kind::kEmpty;
  GrammarSymbol low = 0, high = 0;  // kSymbols: inclusive
  int32_t rule = -1;                // kCall
  int32_t target = 0;
};

class Grammar {
 public:
  std::span<const GrammarEdge> edges(int32_t state) const {
    const auto s = static_cast<size_t>(state);
    return std::span(edges_).subspan(first_edge_[s], first_edge_[s + 1] - first_edge_[s]);
  }
  // An end has no edges.
  bool is_end(int32_t state) const { return is_end_[static_cast<size_t>(state)] != 0; }
  // Calls within calls that the shortest way to the rule's end needs; beyond kMaxGrammarDepth: there is no way.
  int32_t height(int32_t state) const { return heights_[static_cast<size_t>(state)]; }
  int32_t rule_start(int32_t rule) const { return rule_starts_[static_cast<size_t>(rule)]; }
  int32_t start() const { return start_; }
  int32_t num_states() const { return static_cast<int32_t>(is_end_.size()); }
  const std::vector<std::string>& markers() const { return markers_; }
  // Bytes that are the same only for grammars that allow the same texts.
  std::string Identity() const;

 private:
  friend class GrammarBuilder;
  std::vector<GrammarEdge> edges_;
  std::vector<uint32_t> first_edge_;  // [num_states + 1]
  std::vector<uint8_t> is_end_;
  std::vector<int32_t> heights_;
  std::vector<int32_t> rule_starts_;
  std::vector<std::string> markers_;
  int32_t start_ = 0;
};

// Once the limit is met nothing more is added and Build reports it, so callers need not check at every step; those
// whose loops a client chose the length of look at is_full().
class GrammarBuilder {
 public:
  explicit GrammarBuilder(int32_t max_states) : max_states_(max_states) { NewState(); }

  int32_t NewState();
  int32_t NewRule();
  int32_t start(int32_t rule) const { return rules_[static_cast<size_t>(rule)].first; }
  int32_t end(int32_t rule) const { return rules_[static_cast<size_t>(rule)].second; }
  void Symbols(int32_t from, std::pair<int, int> range, int32_t to);
  void Byte(int32_t from, char byte, int32_t to);
  void Empty(int32_t from, int32_t to);
  // REQUIRES: no rule that is called matches the empty text.
  void Call(int32_t from, int32_t rule, int32_t to);
  // The state behind the text.
  int32_t Literal(int32_t from, std::string_view text);
  void LiteralTo(int32_t from, std::string_view text, int32_t to) { Empty(Literal(from, text), to); }
  // The marker, spelt out or as the vocabulary's control token. REQUIRES: at most kMaxMarkers different ones.
  void Marker(int32_t from, const std::string& marker, int32_t to);
  struct TextSpan {
    int32_t behind = 0;               // the marker
    int32_t end = -1;                 // where a text without the marker leads at any time; -1: nowhere
    std::string_view not_first = {};  // bytes it does not begin with
  };
  // Any text in which the marker first occurs at its end. Other control tokens may stand in it.
  void TextUntil(int32_t from, const std::string& marker, const TextSpan& span);

  bool is_full() const { return is_full_; }
  // InvalidArgument: too large, a rule that calls itself before it reads anything, or no finite text at all.
  absl::StatusOr<std::shared_ptr<const Grammar>> Build(int32_t root_rule);

 private:
  struct Stored {
    int32_t from;
    GrammarEdge edge;
  };
  GrammarSymbol MarkerSymbol(const std::string& marker);
  void Add(int32_t from, GrammarEdge edge);
  bool HasLeftRecursion(const Grammar& grammar) const;
  void ComputeHeights(Grammar& grammar) const;

  const int32_t max_states_;
  int32_t num_states_ = 0;
  std::vector<Stored> edges_;
  std::vector<std::pair<int32_t, int32_t>> rules_;  // start and end
  std::vector<std::string> markers_;
  bool is_full_ = false;
};

}  // namespace millrace
