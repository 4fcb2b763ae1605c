// SPDX-License-Identifier: Apache-2.0
#pragma once
// The grammar of an answer in which tools may or must be called, in the ways of writing a call that AnswerParser knows:
// from the moment a call begins, it is one of an offered tool, with arguments as their schema says. Pure functions.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/grammar/grammar.h"
#include "engine/text/answer_parser.h"
#include "engine/text/template_value.h"

namespace millrace {

enum class CallCount : uint8_t { kOne, kAny };

struct CallGrammarOptions {
  ToolCallFormat format = ToolCallFormat::kHermes;  // not kNone
  std::vector<std::string> names;                   // of the tools that may be called; not empty
  CallCount count = CallCount::kAny;
  // The answer is calls and, at most, reasoning before them. Otherwise it is text in which calls may stand, and a tool
  // whose schema cannot be had takes any object, unless it says "strict": true.
  bool is_required = false;
  bool has_reasoning = false;        // <think> ... </think> may come first, and anything may stand in it
  bool starts_in_reasoning = false;  // the prompt ended with <think>
};

// `tools`: OpenAI's list of {type, function: {name, parameters, strict}}; no parameters mean any object.
// InvalidArgument: a name that is not there, or what CompileJsonSchema says of the parameters.
absl::StatusOr<std::shared_ptr<const Grammar>> CompileToolCalls(const TemplateValue& tools,
                                                                const CallGrammarOptions& options);

}  // namespace millrace
