// SPDX-License-Identifier: Apache-2.0
#pragma once
// The builtin filters by name, in two tables: those that work on text and numbers and those that work on sequences.
// Internal to the template engine.
#include <string_view>

#include "engine/text/jinja_ast.h"

namespace millrace {

struct NamedJinjaFilter {
  std::string_view name;
  JinjaFilter filter;
};

JinjaFilter FindValueFilter(std::string_view name);
JinjaFilter FindSequenceFilter(std::string_view name);

}  // namespace millrace
