// SPDX-License-Identifier: Apache-2.0
#include "server/responses/select_tools.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/text/template_value.h"
#include "server/wire/api_error.h"
#include "server/wire/json_object.h"

namespace millrace {
namespace {

constexpr char kPython[] = "python";

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

void Take(std::shared_ptr<Tool> tool, CallLook look, SelectedTools& selected) {
  const auto [found, is_new] = selected.looks.try_emplace(std::string(tool->name()), std::move(look));
  if (is_new) selected.tools.push_back(std::move(tool));
}

absl::Status TakeFrom(const ToolSet& set, const ToolServerChoice& choice, SelectedTools& selected) {
  const std::vector<std::string> labels = Labels(set);
  if (std::find(labels.begin(), labels.end(), choice.label) == labels.end()) {
    return ParamError("tools",
                      absl::StrCat("there is no tool server '", choice.label.substr(0, 64),
                                   "'; there is: ", absl::StrJoin(labels, ", ")),
                      kUnsupportedValue);
  }
  std::map<std::string, std::shared_ptr<Tool>, std::less<>> there;
  for (const ServedTool& served : set.served()) {
    if (served.server != choice.label) continue;
    there[served.name] = served.tool;
    if (!choice.allowed) Take(served.tool, {.label = served.server, .name = served.name}, selected);
  }
  if (!choice.allowed) return absl::OkStatus();
  for (const std::string& name : *choice.allowed) {
    const auto found = there.find(name);
    if (found == there.end()) return Missing(set, choice.label, name);
    Take(found->second, {.label = choice.label, .name = name}, selected);
  }
  return absl::OkStatus();
}

// What was chosen of each configured server, in the order in which it was. Our own tools are in no need of it.
std::vector<ToolListing> ListServers(const ToolSet& set, const ResponsesRequest& request,
                                     const SelectedTools& selected) {
  std::vector<ToolListing> listings;
  for (const ToolServerChoice& choice : request.tool_servers) {
    const auto is_it = [&choice](const ToolListing& other) { return other.label == choice.label; };
    if (choice.label == kOwnToolServer || request.listed_servers.contains(choice.label) ||
        std::any_of(listings.begin(), listings.end(), is_it)) {
      continue;
    }
    ToolListing listing{.label = choice.label, .tools = "["};
    for (const ServedTool& served : set.served()) {
      if (served.server != choice.label || !selected.looks.contains(served.tool->name())) continue;
      if (listing.tools.size() > 1) listing.tools += ',';
      JsonObject(listing.tools)
          .Text("name", served.name)
          .Text("description", served.tool->description())
          .Raw("input_schema", served.tool->parameters())
          .Raw("annotations", served.annotations)
          .End();
    }
    listing.tools += ']';
    listings.push_back(std::move(listing));
  }
  return listings;
}

}  // namespace

absl::StatusOr<SelectedTools> SelectTools(const ToolSet& set, const ResponsesRequest& request, const Agent* agent) {
  SelectedTools selected;
  if (agent != nullptr) {
    if (request.has_code_interpreter || !request.tool_servers.empty()) {
      return ParamError("tools",
                        absl::StrCat("the agent '", agent->name, "' has tools of its own: only functions can be added"),
                        kUnsupportedValue);
    }
    if (request.forbids_calls) return selected;
    for (const std::shared_ptr<Tool>& tool : agent->tools) {
      const ServedTool* served = set.FindServed(tool->name());
      Take(tool, {.label = served->server, .name = served->name}, selected);
    }
    return selected;
  }
  if (request.has_code_interpreter) {
    std::shared_ptr<Tool> python = set.Find(kPython);
    if (python == nullptr) return Missing(set, kOwnToolServer, kPython);
    Take(std::move(python), {.is_code = true}, selected);
  }
  for (const ToolServerChoice& choice : request.tool_servers) {
    if (absl::Status status = TakeFrom(set, choice, selected); !status.ok()) return status;
  }
  selected.listings = ListServers(set, request, selected);
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
