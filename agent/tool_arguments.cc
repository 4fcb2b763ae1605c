// SPDX-License-Identifier: Apache-2.0
#include "agent/tool_arguments.h"

#include <simdjson.h>

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "agent/tool.h"

namespace millrace {

absl::StatusOr<ToolArguments> ParseStringArguments(std::string_view json,
                                                   const std::vector<std::string_view>& required) {
  if (json.size() > kMaxToolArgumentsBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the arguments have ", json.size(), " bytes, at most ", kMaxToolArgumentsBytes, " are taken"));
  }
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  if (parser.parse(simdjson::padded_string(json)).get(object) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError("the arguments are no JSON object");
  }
  ToolArguments arguments;
  for (const simdjson::dom::key_value_pair member : object) {
    const std::string key(member.key);
    if (std::find(required.begin(), required.end(), key) == required.end()) {
      return absl::InvalidArgumentError(absl::StrCat("there is no argument '", key, "'"));
    }
    std::string_view text;
    if (member.value.get(text) != simdjson::SUCCESS) {
      return absl::InvalidArgumentError(absl::StrCat("the argument '", key, "' must be a string"));
    }
    if (!arguments.emplace(key, text).second) {
      return absl::InvalidArgumentError(absl::StrCat("the argument '", key, "' is there twice"));
    }
  }
  for (const std::string_view key : required) {
    if (!arguments.contains(key)) {
      return absl::InvalidArgumentError(absl::StrCat("the argument '", std::string(key), "' is missing"));
    }
  }
  return arguments;
}

}  // namespace millrace
