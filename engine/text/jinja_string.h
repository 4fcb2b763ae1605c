// SPDX-License-Identifier: Apache-2.0
#pragma once
// String operations shared by the methods and the filters of the template engine. Internal to it.
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/template_value.h"

namespace millrace {

class JinjaEvaluator;

struct Replacement {
  std::string_view old_text;
  TemplateString new_text;
  int64_t max_count = -1;  // negative: all
};

absl::StatusOr<TemplateValue> ReplaceText(JinjaEvaluator& evaluator, const TemplateString& text,
                                          const Replacement& replacement);
// Items that are no strings are printed as str() does.
absl::StatusOr<TemplateValue> JoinText(JinjaEvaluator& evaluator, const TemplateString& separator,
                                       const std::vector<TemplateValue>& items);

// & < > ' " as HTML entities, unless it is marked safe already.
TemplateString EscapeHtml(const TemplateString& text);

}  // namespace millrace
