// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/tool.h"
#include "engine/text/template_value.h"

namespace millrace {

// The result of tools/call as a model reads it: texts, one below the other; what is no text is named in a line of its
// own; where there is nothing else, the structured content as JSON. A result that asks for more input is an error:
// there is nobody here to ask.
ToolResult ReadMcpCallResult(const TemplateValue& result);

}  // namespace millrace
