// SPDX-License-Identifier: Apache-2.0
#include "engine/text/split_pattern.h"

#include <algorithm>

#include "kernels/status_macros.h"

namespace millrace {

absl::StatusOr<SplitPattern> SplitPattern::Expression(std::string_view pattern) {
  if (const auto kind = RecognizePattern(pattern)) return Scanner(*kind);
  ASSIGN_OR_RETURN(Regex regex, Regex::Compile(pattern));
  return SplitPattern(std::move(regex));
}

absl::Status SplitPattern::FindAll(std::string_view text, std::vector<ByteRange>& matches) const {
  if (const auto* regex = std::get_if<Regex>(&kind_)) return regex->FindAll(text, matches);
  if (const auto* scanner = std::get_if<ScannerKind>(&kind_)) {
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = ScanPiece(*scanner, text, begin);
      matches.push_back({begin, end});
      begin = end;
    }
    return absl::OkStatus();
  }
  const std::string& literal = std::get<std::string>(kind_);
  if (literal.empty()) return absl::OkStatus();
  for (size_t at = text.find(literal); at != std::string_view::npos; at = text.find(literal, at + literal.size())) {
    matches.push_back({at, at + literal.size()});
  }
  return absl::OkStatus();
}

std::vector<Span> WithGaps(const std::vector<ByteRange>& matches, size_t text_bytes) {
  std::vector<Span> spans;
  spans.reserve(2 * matches.size() + 1);
  size_t end = 0;
  for (const ByteRange& match : matches) {
    if (match.begin > end) spans.push_back({end, match.begin, false});
    spans.push_back({match.begin, match.end, true});
    end = match.end;
  }
  if (end < text_bytes) spans.push_back({end, text_bytes, false});
  return spans;
}

std::vector<ByteRange> ApplyBehavior(const std::vector<Span>& spans, SplitBehavior behavior) {
  std::vector<ByteRange> pieces;
  pieces.reserve(spans.size());
  bool previous_match = false;
  if (behavior == SplitBehavior::kMergedWithNext) {
    for (size_t i = spans.size(); i-- > 0;) {
      const Span& span = spans[i];
      if (span.is_match && !previous_match && !pieces.empty()) {
        pieces.back().begin = span.begin;
      } else {
        pieces.push_back({span.begin, span.end});
      }
      previous_match = span.is_match;
    }
    std::reverse(pieces.begin(), pieces.end());
  } else {
    for (const Span& span : spans) {
      bool joins = false;
      if (behavior == SplitBehavior::kMergedWithPrevious) joins = span.is_match && !previous_match;
      if (behavior == SplitBehavior::kContiguous) joins = span.is_match == previous_match;
      previous_match = span.is_match;
      if (behavior == SplitBehavior::kRemoved && span.is_match) continue;
      if (joins && !pieces.empty()) {
        pieces.back().end = span.end;
      } else {
        pieces.push_back({span.begin, span.end});
      }
    }
  }
  std::erase_if(pieces, [](const ByteRange& piece) { return piece.begin >= piece.end; });
  return pieces;
}

}  // namespace millrace
