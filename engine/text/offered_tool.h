// SPDX-License-Identifier: Apache-2.0
#pragma once
// The tools of a conversation (Conversation::tools), made and read. Pure functions.
#include <string_view>

#include "engine/text/template_value.h"

namespace millrace {

// {"type": "function", "function": `function`}: OpenAI's shape, as templates expect it.
TemplateValue OfferFunction(TemplateValue function);

// What a tool {"type": "function", "function": {"name", ...}} offers. Views of it.
struct OfferedFunction {
  const TemplateValue* function = nullptr;  // a dict with a name; null: the tool has another shape
  std::string_view name;
};
OfferedFunction ReadOfferedFunction(const TemplateValue& tool);

}  // namespace millrace
