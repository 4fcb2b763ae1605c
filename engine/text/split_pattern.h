// SPDX-License-Identifier: Apache-2.0
// SplitPattern: what a Split pre-tokenizer or a Replace looks for: a literal, a well-known pattern with a hand scanner,
// or any other regular expression. Constant after construction, any thread.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/text/regex.h"
#include "engine/text/scanners.h"

namespace millrace {

// How the matches of a pattern become pieces; the names are those of tokenizer.json.
enum class SplitBehavior : uint8_t { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// Matches and the gaps between them, which together cover the text in order.
struct Span {
  size_t begin;
  size_t end;
  bool is_match;
};

class SplitPattern {
 public:
  static SplitPattern Literal(std::string text) { return SplitPattern(std::move(text)); }
  static SplitPattern Scanner(ScannerKind kind) { return SplitPattern(kind); }
  // Uses a hand scanner where one knows the pattern. InvalidArgument as Regex::Compile.
  static absl::StatusOr<SplitPattern> Expression(std::string_view pattern);

  // The hand scanner, when it is one.
  std::optional<ScannerKind> scanner() const {
    const auto* kind = std::get_if<ScannerKind>(&kind_);
    return kind != nullptr ? std::optional<ScannerKind>(*kind) : std::nullopt;
  }

  // Appends the matches; see Regex::FindAll.
  absl::Status FindAll(std::string_view text, std::vector<ByteRange>& matches) const;

 private:
  using Kind = std::variant<std::string, ScannerKind, Regex>;
  explicit SplitPattern(Kind kind) : kind_(std::move(kind)) {}

  Kind kind_;
};

// Adds the gaps to `matches` of a text of `text_bytes`.
std::vector<Span> WithGaps(const std::vector<ByteRange>& matches, size_t text_bytes);

// Turns spans into the pieces that remain, in order; empty pieces are left out.
std::vector<ByteRange> ApplyBehavior(const std::vector<Span>& spans, SplitBehavior behavior);

}  // namespace millrace
