// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace millrace {

using ToolArguments = std::map<std::string, std::string, std::less<>>;

// Reads a JSON object whose members are strings, each of `required` once and nothing else. InvalidArgument, in words
// that help a model to repair its call, for anything else, and for more than kMaxToolArgumentsBytes.
absl::StatusOr<ToolArguments> ParseStringArguments(std::string_view json,
                                                   const std::vector<std::string_view>& required);

}  // namespace millrace
