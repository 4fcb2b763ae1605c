// SPDX-License-Identifier: Apache-2.0
#pragma once
// Python's ways to format: "%s" % x, "{}".format(x), and strftime. Internal to the template engine.
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/text/jinja_evaluator.h"
#include "engine/text/jinja_object.h"
#include "engine/text/template_value.h"

namespace millrace {

// `values`: a tuple of them, a dict for %(name)s, or the only one.
absl::StatusOr<TemplateString> FormatPercent(JinjaEvaluator& evaluator, const TemplateString& format,
                                             const TemplateValue& values);
// str.format: {}, {0}, {name}, {0.attribute}, {0[key]}, !r, and format specs of strings and numbers.
absl::StatusOr<TemplateString> FormatBraces(JinjaEvaluator& evaluator, const TemplateString& format,
                                            const JinjaArgs& args);
// Python's strftime in the C locale.
absl::StatusOr<TemplateString> FormatTime(JinjaEvaluator& evaluator, const TemplateString& format, absl::Time time,
                                          absl::TimeZone zone);

}  // namespace millrace
