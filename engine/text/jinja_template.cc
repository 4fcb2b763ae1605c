// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_template.h"

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_evaluator.h"
#include "kernels/status_macros.h"

namespace millrace {

JinjaTemplate::JinjaTemplate(std::unique_ptr<JinjaTree> tree, const JinjaLimits& limits)
    : tree_(std::move(tree)), limits_(limits) {}
JinjaTemplate::JinjaTemplate(JinjaTemplate&&) noexcept = default;
JinjaTemplate& JinjaTemplate::operator=(JinjaTemplate&&) noexcept = default;
JinjaTemplate::~JinjaTemplate() = default;

absl::StatusOr<JinjaTemplate> JinjaTemplate::Parse(std::string_view source, const JinjaLimits& limits) {
  JinjaParseLimits parse_limits;
  parse_limits.max_source_bytes = limits.max_source_bytes;
  ASSIGN_OR_RETURN(std::unique_ptr<JinjaTree> tree, ParseJinja(source, parse_limits));
  return JinjaTemplate(std::move(tree), limits);
}

absl::StatusOr<TemplateString> JinjaTemplate::Render(const TemplateValue& variables,
                                                     const JinjaRenderOptions& options) const {
  JinjaEvaluator evaluator(*tree_, limits_, options);
  return evaluator.Render(variables);
}

}  // namespace millrace
