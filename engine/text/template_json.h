// SPDX-License-Identifier: Apache-2.0
#pragma once
// JSON to and from template values. The writer prints as Python's json.dumps does, which is what templates expect of
// tojson. Free functions, no state.
#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/template_string.h"
#include "engine/text/template_value.h"

namespace millrace {

struct TemplateJsonLimits {
  size_t max_bytes = 64 << 20;
  int max_depth = 100;
  size_t max_values = 4'000'000;
};

// One JSON document (RFC 8259, strict); its strings count as request data. Integers beyond 64 bits become floats, a
// lone surrogate becomes U+FFFD, of equal keys the last wins. InvalidArgument: what is wrong and at which byte.
absl::StatusOr<TemplateValue> ParseJsonValue(std::string_view text, const TemplateJsonLimits& limits = {});

struct TemplateJsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool is_indented = false;
  std::string indent;                 // one level, when is_indented
  std::string item_separator = ", ";  // json.dumps uses "," when indented
  std::string key_separator = ": ";
  size_t max_bytes = 64 << 20;
};

// Appends `value`; characters of strings keep their origin, the rest counts as data. InvalidArgument: a value JSON
// cannot hold (undefined, an object), nested too deep, or longer than max_bytes.
absl::Status AppendJson(const TemplateValue& value, const TemplateJsonStyle& style, TemplateStringBuilder& out);

}  // namespace millrace
