// SPDX-License-Identifier: Apache-2.0
#include "server/responses/select_tools.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/text/template_value.h"
#include "server/wire/api_error.h"

namespace millrace {
namespace {

constexpr char kPython[] = "python";

absl::Status Missing(const ToolSet& set, std::string_view name) {
  const std::string there = absl::StrJoin(
      set.all(), ", ", [](std::string* out, const std::shared_ptr<Tool>& tool) { out->append(tool->name()); });
  return ParamError("tools",
                    absl::StrCat("this server does not offer the tool '", std::string(name.substr(0, 64)),
                                 "'; it offers: ", there.empty() ? "none" : there),
                    kUnsupportedValue);
}

void Take(std::shared_ptr<Tool> tool, const CallLook& look, SelectedTools& selected) {
  const auto [found, is_new] = selected.looks.try_emplace(std::string(tool->name()), look);
  if (is_new) selected.tools.push_back(std::move(tool));
}

}  // namespace

absl::StatusOr<SelectedTools> SelectTools(const ToolSet& set, const ResponsesRequest& request) {
  SelectedTools selected;
  if (request.has_code_interpreter) {
    std::shared_ptr<Tool> python = set.Find(kPython);
    if (python == nullptr) return Missing(set, kPython);
    Take(std::move(python), {.is_code = true}, selected);
  }
  for (const ToolServerChoice& server : request.tool_servers) {
    if (server.label != kOwnToolServer) {
      return ParamError(
          "tools",
          absl::StrCat("there is no tool server '", server.label.substr(0, 64), "'; there is: ", kOwnToolServer),
          kUnsupportedValue);
    }
    const CallLook look{.label = server.label};
    if (!server.allowed) {
      for (const std::shared_ptr<Tool>& tool : set.all()) Take(tool, look, selected);
      continue;
    }
    for (const std::string& name : *server.allowed) {
      std::shared_ptr<Tool> tool = set.Find(name);
      if (tool == nullptr) return Missing(set, name);
      Take(std::move(tool), look, selected);
    }
  }
  return selected;
}

std::vector<std::string> RequiredTools(const ResponsesRequest& request, const SelectedTools& selected) {
  if (!request.must_call || !request.chat.required_tools.empty()) return request.chat.required_tools;
  std::vector<std::string> names;
  const TemplateValue& functions = request.chat.conversation.tools;
  for (size_t i = 0; functions.is_list() && i < functions.as_list().items.size(); ++i) {
    const TemplateValue* function = functions.as_list().items[i].as_dict().Find("function");
    names.emplace_back(function->as_dict().Find("name")->text());
  }
  for (const std::shared_ptr<Tool>& tool : selected.tools) names.emplace_back(tool->name());
  return names;
}

}  // namespace millrace
