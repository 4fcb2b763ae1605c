// SPDX-License-Identifier: Apache-2.0
#include "server/responses/select_tools.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/text/template_value.h"
#include "server/wire/api_error.h"
#include "server/wire/json_object.h"

namespace millrace {
namespace {

constexpr char kPython[] = "python";

void Take(std::shared_ptr<Tool> tool, CallLook look, SelectedTools& selected) {
  const auto [found, is_new] = selected.looks.try_emplace(std::string(tool->name()), std::move(look));
  if (is_new) selected.tools.push_back(std::move(tool));
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
    if (python == nullptr) {
      return ChooseTools(set, {.label = kOwnToolServer, .allowed = std::vector<std::string>{kPython}}).status();
    }
    Take(std::move(python), {.is_code = true}, selected);
  }
  for (const ToolServerChoice& choice : request.tool_servers) {
    const auto chosen = ChooseTools(set, choice);
    if (!chosen.ok()) return chosen.status();
    for (const ServedTool* served : *chosen) {
      Take(served->tool, {.label = served->server, .name = served->name}, selected);
    }
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
