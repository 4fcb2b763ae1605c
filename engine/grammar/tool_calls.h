// SPDX-License-Identifier: Apache-2.0
#pragma once
// The grammar of an answer that must call tools, as models of the Hermes format write it. Pure functions.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/grammar/grammar.h"
#include "engine/text/template_value.h"

namespace millrace {

enum class CallCount : uint8_t { kOne, kAny };

// One call, or one after another, each <tool_call>{"name": one of `names`, "arguments": its parameters}</tool_call>,
// and nothing else. `tools`: OpenAI's list of {type, function: {name, parameters}}; no parameters mean any object.
// InvalidArgument: a name that is not there, or what CompileJsonSchema says of the parameters.
absl::StatusOr<std::shared_ptr<const Grammar>> CompileHermesCalls(const TemplateValue& tools,
                                                                  const std::vector<std::string>& names,
                                                                  CallCount count);

}  // namespace millrace
