// SPDX-License-Identifier: Apache-2.0
#pragma once
// JSON Schema's `pattern`: a subset of regular expressions, as grammar edges over a JSON string's inside.
//   literals . [abc] [^a-z] \d \w \s \D \W \S \n \r \t \f \v \xHH \uHHHH (a|b) (?:a) a* a+ a? a{2} a{2,} a{2,5} ^ $
// ^ and $ stand at the ends of a whole alternative only; without them any text may come before or behind.
#include <string_view>

#include "absl/status/status.h"
#include "engine/grammar/grammar.h"

namespace millrace {

// InvalidArgument: malformed or beyond the subset, with the byte; nested or repeated too often.
absl::Status EmitPattern(GrammarBuilder& builder, int32_t from, std::string_view pattern, int32_t to);

}  // namespace millrace
