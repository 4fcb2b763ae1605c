// SPDX-License-Identifier: Apache-2.0
// Regex: a regular expression of a tokenizer.json, compiled once by PCRE2 (JIT) with the meaning that Oniguruma, which
// such files are written for, gives it. Constant after construction, any thread. Not for patterns of clients.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

namespace millrace {

struct ByteRange {
  size_t begin;
  size_t end;
};

class Regex {
 public:
  // InvalidArgument with PCRE2's words when the pattern is too long, malformed or uses what PCRE2 lacks.
  static absl::StatusOr<Regex> Compile(std::string_view pattern);

  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // Appends all matches from left to right, not overlapping; an empty match never touches the end of the one before.
  // REQUIRES: `text` is valid UTF-8. ResourceExhausted when the match limit is exceeded.
  absl::Status FindAll(std::string_view text, std::vector<ByteRange>& matches) const;

 private:
  struct Compiled;
  explicit Regex(std::unique_ptr<const Compiled> compiled);

  std::unique_ptr<const Compiled> compiled_;
};

}  // namespace millrace
