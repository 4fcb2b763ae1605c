// SPDX-License-Identifier: Apache-2.0
#pragma once
// Splits a chat template into tokens as Jinja2 does with trim_blocks and lstrip_blocks set. Internal to the engine.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace millrace {

enum class JinjaTokenKind {
  kData,           // text between tags, white space already trimmed
  kVariableBegin,  // {{
  kVariableEnd,
  kBlockBegin,  // {%
  kBlockEnd,
  kName,
  kString,  // unescaped
  kInteger,
  kFloat,
  kOperator,  // spelled in `text`
  kEnd,
};

struct JinjaToken {
  JinjaTokenKind kind = JinjaTokenKind::kEnd;
  int line = 0;
  std::string text;
  int64_t integer = 0;
  double number = 0;
};

// The last token is kEnd. InvalidArgument with the line: an unknown character, an open tag or string, a number that
// does not fit, unbalanced brackets.
absl::StatusOr<std::vector<JinjaToken>> LexJinja(std::string_view source);

// "chat template line N: what".
absl::Status JinjaError(int line, std::string_view what);

}  // namespace millrace
