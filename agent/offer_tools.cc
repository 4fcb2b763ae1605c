// SPDX-License-Identifier: Apache-2.0
#include "agent/offer_tools.h"

#include <set>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "engine/text/offered_tool.h"
#include "engine/text/template_json.h"
#include "engine/text/template_value.h"

namespace millrace {
namespace {

absl::StatusOr<TemplateValue> DescribeTool(const Tool& tool) {
  auto parameters = ParseJsonValue(tool.parameters());
  if (!parameters.ok()) return parameters.status();
  TemplateValue function = TemplateValue::Dict();
  function.as_dict().Set("name", TemplateValue::Text(tool.name()));
  function.as_dict().Set("description", TemplateValue::Text(tool.description()));
  function.as_dict().Set("parameters", *std::move(parameters));
  return OfferFunction(std::move(function));
}

}  // namespace

absl::Status OfferTools(const std::vector<std::shared_ptr<Tool>>& tools, Conversation& conversation) {
  if (tools.empty()) return absl::OkStatus();
  std::vector<TemplateValue> all;
  if (conversation.tools.is_list()) all = conversation.tools.as_list().items;
  std::set<std::string, std::less<>> names;
  for (const TemplateValue& described : all) names.emplace(ReadOfferedFunction(described).name);
  for (const std::shared_ptr<Tool>& tool : tools) {
    if (!names.emplace(tool->name()).second) {
      return absl::InvalidArgumentError(absl::StrCat("two tools have the name '", std::string(tool->name()), "'"));
    }
    auto described = DescribeTool(*tool);
    if (!described.ok()) return described.status();
    all.push_back(*std::move(described));
  }
  // A list of its own: the caller's may be read by others.
  conversation.tools = TemplateValue::List(std::move(all));
  return absl::OkStatus();
}

}  // namespace millrace
