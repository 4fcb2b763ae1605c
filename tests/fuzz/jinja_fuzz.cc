// SPDX-License-Identifier: Apache-2.0
// A chat template and, after a zero byte, the JSON of its variables: parsed and rendered under tight limits. Whatever
// the bytes are, the answer is text or a status, and the runs of the text cover it exactly.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "engine/text/jinja_template.h"
#include "engine/text/template_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  using namespace millrace;
  const std::string_view input(reinterpret_cast<const char*>(data), num_bytes);
  const size_t zero = input.find('\0');
  JinjaLimits limits;
  limits.max_steps = 20'000;
  limits.max_memory_bytes = 4 << 20;
  limits.max_output_bytes = 1 << 20;
  limits.max_range_items = 1000;
  const absl::StatusOr<JinjaTemplate> jinja = JinjaTemplate::Parse(input.substr(0, zero), limits);
  if (!jinja.ok()) return 0;
  static constexpr std::string_view kVariables =
      R"({"messages": [{"role": "user", "content": "Hi <|x|> \u00e9"}, {"role": "assistant", "content": null,
      "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, 2.5, "b"]}}}]}], "n": 3, "l": ["b", "A", 1],
      "add_generation_prompt": true})";
  absl::StatusOr<TemplateValue> variables = ParseJsonValue(zero == input.npos ? kVariables : input.substr(zero + 1));
  if (!variables.ok()) variables = ParseJsonValue(kVariables);
  if (!variables.ok()) std::abort();
  const absl::StatusOr<TemplateString> rendered = jinja->Render(*variables);
  if (!rendered.ok()) return 0;
  size_t end = 0;
  for (const TextRun& run : rendered->runs()) {
    if (run.end <= end) std::abort();
    end = run.end;
  }
  if (end != rendered->size_bytes()) std::abort();
  return 0;
}
