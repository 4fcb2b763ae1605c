// SPDX-License-Identifier: Apache-2.0
#pragma once
// A Jinja2 subset with what chat templates need, in the settings of Hugging Face transformers: trim_blocks,
// lstrip_blocks, loop controls, raise_exception, strftime_now, its tojson, generation blocks; no loader (include,
// extends and import are refused). A hostile template is stopped by limits that count, so a render is deterministic.
// A JinjaTemplate is immutable: any number of threads may render it at once.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/text/template_string.h"
#include "engine/text/template_value.h"

namespace millrace {

struct JinjaTree;

// What one template and one render of it may use; each with the unit and the default.
struct JinjaLimits {
  size_t max_source_bytes = 1 << 20;
  int64_t max_steps = 5'000'000;        // expressions, statements and items visited; some 50 ns each
  size_t max_output_bytes = 64 << 20;   // of the render, and of any one string
  size_t max_memory_bytes = 256 << 20;  // sum of all strings and containers built, freed or not
  int max_depth = 400;                  // nested evaluations, so also recursive macros
  int64_t max_range_items = 100'000;    // of one range()
};

struct JinjaRenderOptions {
  absl::Time now = absl::UnixEpoch();  // for strftime_now
  absl::TimeZone time_zone = absl::UTCTimeZone();
};

class JinjaTemplate {
 public:
  // InvalidArgument with the line: a syntax error, an unsupported tag, or a limit (which is named).
  static absl::StatusOr<JinjaTemplate> Parse(std::string_view source, const JinjaLimits& limits = {});
  JinjaTemplate(JinjaTemplate&&) noexcept;
  JinjaTemplate& operator=(JinjaTemplate&&) noexcept;
  ~JinjaTemplate();

  // Renders with `variables`, a dict of names to values; it is copied where the template may change it.
  // InvalidArgument with the line: an error of Python's kind, raise_exception's message, or a limit (which is named).
  absl::StatusOr<TemplateString> Render(const TemplateValue& variables, const JinjaRenderOptions& options = {}) const;

 private:
  JinjaTemplate(std::unique_ptr<JinjaTree> tree, const JinjaLimits& limits);

  std::unique_ptr<const JinjaTree> tree_;
  JinjaLimits limits_;
};

}  // namespace millrace
