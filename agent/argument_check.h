// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string_view>

#include "absl/status/status.h"

namespace millrace {

// Whether the arguments of a call fit their tool's JSON schema. InvalidArgument, in words that help a model to repair
// its call, for what is no JSON object, breaks the schema, or is longer than kMaxToolArgumentsBytes. Followed: type,
// enum, const, anyOf, oneOf (as anyOf), allOf, properties, required, additionalProperties, items, and the bounds of
// numbers, strings and arrays. What else a schema says, and a schema that is none, allows anything: tools check what
// they need themselves.
absl::Status CheckArguments(std::string_view schema, std::string_view arguments);

}  // namespace millrace
