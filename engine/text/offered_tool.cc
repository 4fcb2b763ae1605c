// SPDX-License-Identifier: Apache-2.0
#include "engine/text/offered_tool.h"

#include <utility>

namespace millrace {

TemplateValue OfferFunction(TemplateValue function) {
  TemplateValue tool = TemplateValue::Dict();
  tool.as_dict().Set("type", TemplateValue::Trusted("function"));
  tool.as_dict().Set("function", std::move(function));
  return tool;
}

OfferedFunction ReadOfferedFunction(const TemplateValue& tool) {
  const TemplateValue* function = tool.is_dict() ? tool.as_dict().Find("function") : nullptr;
  const TemplateValue* name = function != nullptr && function->is_dict() ? function->as_dict().Find("name") : nullptr;
  if (name == nullptr || !name->is_string()) return {};
  return {.function = function, .name = name->text()};
}

}  // namespace millrace
