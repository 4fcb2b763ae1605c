// SPDX-License-Identifier: Apache-2.0
#include "server/agents/tool_choice.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/wire/api_error.h"

namespace millrace {
namespace {

std::vector<std::string> Labels(const ToolSet& set) {
  std::vector<std::string> labels = {kOwnToolServer};
  for (const ServedTool& served : set.served()) {
    if (std::find(labels.begin(), labels.end(), served.server) == labels.end()) labels.push_back(served.server);
  }
  return labels;
}

absl::Status Missing(const ToolSet& set, std::string_view label, std::string_view name) {
  std::string there;
  for (const ServedTool& served : set.served()) {
    if (served.server == label) absl::StrAppend(&there, there.empty() ? "" : ", ", served.name);
  }
  return ParamError("tools",
                    absl::StrCat("'", std::string(label), "' does not offer the tool '",
                                 std::string(name.substr(0, 64)), "'; it offers: ", there.empty() ? "none" : there),
                    kUnsupportedValue);
}

}  // namespace

absl::StatusOr<std::vector<const ServedTool*>> ChooseTools(const ToolSet& set, const ToolServerChoice& choice) {
  const std::vector<std::string> labels = Labels(set);
  if (std::find(labels.begin(), labels.end(), choice.label) == labels.end()) {
    return ParamError("tools",
                      absl::StrCat("there is no tool server '", choice.label.substr(0, 64),
                                   "'; there is: ", absl::StrJoin(labels, ", ")),
                      kUnsupportedValue);
  }
  std::vector<const ServedTool*> all, chosen;
  for (const ServedTool& served : set.served()) {
    if (served.server == choice.label) all.push_back(&served);
  }
  if (!choice.allowed) return all;
  for (const std::string& name : *choice.allowed) {
    const auto found = std::find_if(all.begin(), all.end(), [&](const ServedTool* each) { return each->name == name; });
    if (found == all.end()) return Missing(set, choice.label, name);
    chosen.push_back(*found);
  }
  return chosen;
}

}  // namespace millrace
