// SPDX-License-Identifier: Apache-2.0
// A model's text, cut anywhere: the parts must not depend on the cuts, and each call must hold an object.
#include <cstdint>
#include <string>
#include <string_view>

#include "engine/text/answer_parser.h"
#include "engine/text/template_json.h"
#include "kernels/check.h"

namespace {

struct Outcome {
  millrace::AnswerParts parts;
  int32_t num_malformed = 0;
};

Outcome Parse(uint8_t choice, std::string_view text, size_t piece_bytes) {
  millrace::AnswerParser parser({.format = static_cast<millrace::ToolCallFormat>(choice % 4),
                                 .splits_reasoning = (choice & 4) != 0,
                                 .starts_in_reasoning = (choice & 8) != 0,
                                 .tool_names = {"f", "g"}});
  Outcome outcome;
  for (size_t at = 0; at < text.size(); at += piece_bytes) parser.Push(text.substr(at, piece_bytes), outcome.parts);
  parser.Finish(outcome.parts);
  outcome.num_malformed = parser.num_malformed();
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  if (num_bytes < 2 || num_bytes > 20000) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, num_bytes - 2);
  const Outcome whole = Parse(data[0], text, text.size() + 1);
  const Outcome cut = Parse(data[0], text, 1 + data[1] % 16);
  MILLRACE_CHECK(whole.parts.content == cut.parts.content, "content depends on the cuts");
  MILLRACE_CHECK(whole.parts.reasoning == cut.parts.reasoning, "reasoning depends on the cuts");
  MILLRACE_CHECK(whole.parts.calls.size() == cut.parts.calls.size(), "calls depend on the cuts");
  MILLRACE_CHECK(whole.num_malformed == cut.num_malformed, "faults depend on the cuts");
  for (size_t i = 0; i < whole.parts.calls.size(); ++i) {
    const auto& call = whole.parts.calls[i];
    MILLRACE_CHECK(call.arguments == cut.parts.calls[i].arguments, "arguments depend on the cuts");
    const auto value = millrace::ParseJsonValue(call.arguments);
    MILLRACE_CHECK(value.ok() && value->is_dict() && !call.name.empty(), "a call without a name or an object");
  }
  return 0;
}
