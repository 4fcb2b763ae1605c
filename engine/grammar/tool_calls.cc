// SPDX-License-Identifier: Apache-2.0
#include "engine/grammar/tool_calls.h"

#include "absl/strings/str_cat.h"
#include "engine/grammar/schema_compiler.h"
#include "engine/text/template_json.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

const TemplateValue* FindFunction(const TemplateValue& tools, const std::string& name) {
  if (!tools.is_list()) return nullptr;
  for (const TemplateValue& tool : tools.as_list().items) {
    const TemplateValue* function = tool.is_dict() ? tool.as_dict().Find("function") : nullptr;
    const TemplateValue* found =
        function != nullptr && function->is_dict() ? function->as_dict().Find("name") : nullptr;
    if (found != nullptr && found->is_string() && found->text() == name) return function;
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Grammar>> CompileHermesCalls(const TemplateValue& tools,
                                                                  const std::vector<std::string>& names,
                                                                  CallCount count) {
  const JsonSchemaLimits limits;
  GrammarBuilder builder(limits.max_states);
  SchemaCompiler compiler(builder, limits);
  const TemplateValue any_object = *ParseJsonValue(R"({"type": "object"})");
  const int32_t calls = builder.NewRule(), begin = builder.NewState(), behind = builder.NewState();
  const auto line_end = [&](int32_t from) {
    const int32_t to = builder.NewState();
    builder.Empty(from, to);
    builder.Byte(from, '\n', to);
    return to;
  };
  builder.Marker(builder.start(calls), "<tool_call>", begin);
  const int32_t name_begin = builder.Literal(line_end(begin), R"({"name": )");
  for (const std::string& name : names) {
    const TemplateValue* function = FindFunction(tools, name);
    if (function == nullptr) return absl::InvalidArgumentError(absl::StrCat("there is no tool '", name, "'"));
    const TemplateValue* parameters = function->as_dict().Find("parameters");
    ASSIGN_OR_RETURN(const int32_t rule,
                     compiler.Compile(parameters == nullptr || parameters->is_none() ? any_object : *parameters));
    TemplateStringBuilder quoted;
    RETURN_IF_ERROR(AppendJson(*function->as_dict().Find("name"), {}, quoted));
    const int32_t arguments = builder.Literal(name_begin, std::string(quoted.Build().view()) + R"(, "arguments": )");
    builder.Call(arguments, rule, behind);
  }
  const int32_t close = line_end(builder.Literal(behind, "}")), closed = builder.NewState();
  builder.Marker(close, "</tool_call>", closed);
  builder.Empty(closed, builder.end(calls));
  if (count == CallCount::kAny) builder.Empty(builder.Literal(closed, "\n"), builder.start(calls));
  return builder.Build(calls);
}

}  // namespace millrace
