// SPDX-License-Identifier: Apache-2.0
#include "engine/text/offered_tool.h"

namespace millrace {

OfferedFunction ReadOfferedFunction(const TemplateValue& tool) {
  const TemplateValue* function = tool.is_dict() ? tool.as_dict().Find("function") : nullptr;
  const TemplateValue* name = function != nullptr && function->is_dict() ? function->as_dict().Find("name") : nullptr;
  if (name == nullptr || !name->is_string()) return {};
  return {.function = function, .name = name->text()};
}

}  // namespace millrace
