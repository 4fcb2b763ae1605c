// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/agents/tool_set.h"

namespace millrace {

// Tools that the server runs and the client asked for by the label of what offers them.
struct ToolServerChoice {
  std::string label;
  std::optional<std::vector<std::string>> allowed;  // names there; without: all it has
};

// These tools of the set, in the order in which they were asked for. InvalidArgument, of the field "tools": there is no
// server of that label, or it does not offer one of them.
absl::StatusOr<std::vector<const ServedTool*>> ChooseTools(const ToolSet& set, const ToolServerChoice& choice);

}  // namespace millrace
