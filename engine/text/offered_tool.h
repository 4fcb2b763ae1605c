// SPDX-License-Identifier: Apache-2.0
#pragma once
// Reading the tools of a conversation (Conversation::tools). Pure functions.
#include <string_view>

#include "engine/text/template_value.h"

namespace millrace {

// What a tool {"type": "function", "function": {"name", ...}} offers. Views of it.
struct OfferedFunction {
  const TemplateValue* function = nullptr;  // a dict with a name; null: the tool has another shape
  std::string_view name;
};
OfferedFunction ReadOfferedFunction(const TemplateValue& tool);

}  // namespace millrace
