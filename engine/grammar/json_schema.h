// SPDX-License-Identifier: Apache-2.0
#pragma once
// JSON Schema (draft 2020-12, a documented subset: docs/serving.md) to a Grammar of the JSON texts that satisfy it.
// The texts are a subset of all valid ones: members come in the schema's order, there is at most one space behind ':'
// and ',', numbers have at most 18 digits before the point, nesting ends at kMaxGrammarDepth. Pure functions, hostile
// input welcome: time and memory are bounded by the limits.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/grammar/grammar.h"
#include "engine/text/template_value.h"

namespace millrace {

struct JsonSchemaLimits {
  int32_t max_states = 50'000;
  size_t max_schemas = 10'000;  // schemas within the schema
};

// InvalidArgument names what is wrong and where, as a JSON pointer: an unknown shape, a keyword that would change what
// is valid and is not supported, a schema that nothing satisfies, a limit exceeded.
absl::StatusOr<std::shared_ptr<const Grammar>> CompileJsonSchema(const TemplateValue& schema,
                                                                 const JsonSchemaLimits& limits = {});
// Any JSON object.
std::shared_ptr<const Grammar> AnyJsonObject();

}  // namespace millrace
