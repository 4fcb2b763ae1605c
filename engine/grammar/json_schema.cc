// SPDX-License-Identifier: Apache-2.0
#include "engine/grammar/json_schema.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/grammar/schema_compiler.h"
#include "engine/text/template_json.h"
#include "engine/text/utf8.h"
#include "kernels/check.h"

namespace millrace {
namespace {

constexpr size_t kMaxPathBytes = 200;

// What JSON Schema knows that changes which texts are valid and that we do not follow. Anything else that we do not
// know is an annotation.
constexpr std::string_view kRefused[] = {"$dynamicRef",
                                         "$recursiveRef",
                                         "additionalItems",
                                         "contains",
                                         "dependencies",
                                         "dependentRequired",
                                         "dependentSchemas",
                                         "else",
                                         "if",
                                         "maxContains",
                                         "maxProperties",
                                         "minContains",
                                         "minProperties",
                                         "multipleOf",
                                         "not",
                                         "oneOf",
                                         "patternProperties",
                                         "propertyNames",
                                         "then",
                                         "unevaluatedItems",
                                         "unevaluatedProperties",
                                         "uniqueItems"};
constexpr std::string_view kFollowed[] = {"$ref",
                                          "additionalProperties",
                                          "allOf",
                                          "anyOf",
                                          "const",
                                          "enum",
                                          "exclusiveMaximum",
                                          "exclusiveMinimum",
                                          "items",
                                          "maxItems",
                                          "maxLength",
                                          "maximum",
                                          "minItems",
                                          "minLength",
                                          "minimum",
                                          "pattern",
                                          "prefixItems",
                                          "properties",
                                          "required",
                                          "type"};

template <size_t n>
bool IsIn(const std::string_view (&list)[n], std::string_view word) {
  return std::find(std::begin(list), std::end(list), word) != std::end(list);
}

// One step of a JSON pointer; null where it leads nowhere.
const TemplateValue* Step(const TemplateValue& from, std::string_view raw) {
  std::string name;
  for (size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] == '~' && i + 1 < raw.size() && (raw[i + 1] == '0' || raw[i + 1] == '1')) {
      name += raw[++i] == '0' ? '~' : '/';
    } else {
      name += raw[i];
    }
  }
  if (from.is_dict()) return from.as_dict().Find(name);
  if (!from.is_list()) return nullptr;
  size_t index = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
  const auto& items = from.as_list().items;
  return error == std::errc() && end == name.data() + name.size() && index < items.size() ? &items[index] : nullptr;
}

}  // namespace

void SchemaCompiler::Fail(const Job& job, std::string_view keyword, std::string_view what) {
  if (!status_.ok()) return;
  const std::string subject = keyword.empty() ? "" : "'" + std::string(keyword) + "' ";
  status_ =
      absl::InvalidArgumentError(absl::StrCat("the schema at '", job.place.path, "': ", subject, std::string(what)));
}

const TemplateValue* SchemaCompiler::Find(const Job& job, std::string_view keyword) const {
  return job.place.schema->as_dict().Find(keyword);
}

SchemaCompiler::Place SchemaCompiler::Inside(const Job& job, const TemplateValue& schema, std::string_view step) const {
  Place place{&schema, job.place.document, job.place.path};
  if (place.path.size() < kMaxPathBytes)
    AppendRepairedUtf8(std::string("/").append(step.substr(0, kMaxPathBytes)), place.path);
  return place;
}

int32_t SchemaCompiler::RuleOf(Place place) {
  const auto [found, is_new] = rules_.try_emplace(place.schema, -1);
  if (!is_new) return found->second;
  const int32_t rule = found->second = builder_.NewRule();
  jobs_.push_back({std::move(place), rule});
  if (rules_.size() > limits_.max_schemas) {
    Fail(jobs_.back(), "", absl::StrCat("there are more than ", limits_.max_schemas, " schemas"));
  }
  return rule;
}

absl::StatusOr<int32_t> SchemaCompiler::Compile(const TemplateValue& document) {
  const int32_t rule = RuleOf({&document, &document, "#"});
  while (!jobs_.empty() && status_.ok() && !builder_.is_full()) {
    const Job job = std::move(jobs_.front());
    jobs_.pop_front();
    CompileOne(job);
  }
  if (!status_.ok()) return status_;
  return rule;
}

void SchemaCompiler::CompileOne(const Job& job) {
  if (job.place.schema == nullptr) return EmitAnyValue(job.rule);
  const TemplateValue& schema = *job.place.schema;
  if (schema.is_bool()) {
    if (schema.as_bool()) builder_.Call(builder_.start(job.rule), AnyValueRule(), builder_.end(job.rule));
    return;  // false: no way leads to the end
  }
  if (!schema.is_dict()) return Fail(job, "", "a schema must be an object or a boolean");
  if (CheckKeywords(job)) EmitDict(job);
}

bool SchemaCompiler::CheckKeywords(const Job& job) {
  for (const auto& [key, value] : job.place.schema->as_dict().entries()) {
    const bool is_harmless = value.is_bool() && !value.as_bool() && key.text() == "uniqueItems";
    if (IsIn(kRefused, key.text()) && !is_harmless) Fail(job, key.text(), "is not supported");
  }
  return status_.ok();
}

bool SchemaCompiler::CheckAlone(const Job& job, std::string_view keyword,
                                std::initializer_list<std::string_view> beside) {
  for (const auto& [key, value] : job.place.schema->as_dict().entries()) {
    const std::string_view other = key.text();
    if (other == keyword || !IsIn(kFollowed, other)) continue;
    if (std::find(beside.begin(), beside.end(), other) != beside.end()) continue;
    Fail(job, other, absl::StrCat("is not supported beside '", std::string(keyword), "'"));
  }
  return status_.ok();
}

void SchemaCompiler::EmitDict(const Job& job) {
  if (const TemplateValue* reference = Find(job, "$ref")) {
    if (CheckAlone(job, "$ref", {})) EmitReference(job, *reference);
    return;
  }
  for (const std::string_view keyword : {"anyOf", "allOf"}) {
    if (Find(job, keyword) == nullptr) continue;
    if (CheckAlone(job, keyword, {})) EmitChoices(job, keyword);
    return;
  }
  for (const std::string_view keyword : {"const", "enum"}) {
    if (Find(job, keyword) == nullptr) continue;
    if (CheckAlone(job, keyword, {"type"})) EmitValues(job, keyword);
    return;
  }
  const std::vector<Type> types = ReadTypes(job);
  if (!status_.ok()) return;
  if (types.empty()) return builder_.Call(builder_.start(job.rule), AnyValueRule(), builder_.end(job.rule));
  for (const Type type : types) EmitType(job, type);
}

void SchemaCompiler::EmitReference(const Job& job, const TemplateValue& reference) {
  if (!reference.is_string()) return Fail(job, "$ref", "must be a string");
  std::string_view pointer = reference.text();
  if (!pointer.starts_with('#') || (pointer.size() > 1 && pointer[1] != '/')) {
    return Fail(job, "$ref", "must point into the schema itself ('#/$defs/...')");
  }
  const TemplateValue* target = job.place.document;
  std::string path;
  AppendRepairedUtf8(pointer.substr(0, kMaxPathBytes), path);
  pointer.remove_prefix(1);
  while (target != nullptr && !pointer.empty()) {
    const size_t end = std::min(pointer.find('/', 1), pointer.size());
    target = Step(*target, pointer.substr(1, end - 1));
    pointer.remove_prefix(end);
  }
  if (target == nullptr) return Fail(job, "$ref", absl::StrCat("leads nowhere: '", path, "'"));
  const int32_t rule = RuleOf({target, job.place.document, std::move(path)});
  builder_.Call(builder_.start(job.rule), rule, builder_.end(job.rule));
}

void SchemaCompiler::EmitChoices(const Job& job, std::string_view keyword) {
  const TemplateValue& list = *Find(job, keyword);
  if (!list.is_list() || list.as_list().items.empty()) return Fail(job, keyword, "must be a list of schemas");
  const auto& items = list.as_list().items;
  if (keyword == "allOf" && items.size() > 1) return Fail(job, keyword, "is not supported with several schemas");
  for (size_t i = 0; i < items.size(); ++i) {
    const int32_t rule = RuleOf(Inside(job, items[i], absl::StrCat(std::string(keyword), "/", i)));
    builder_.Call(builder_.start(job.rule), rule, builder_.end(job.rule));
  }
}

std::vector<SchemaCompiler::Type> SchemaCompiler::ReadTypes(const Job& job) {
  static constexpr std::pair<std::string_view, Type> kNames[] = {
      {"null", Type::kNull},     {"boolean", Type::kBoolean}, {"integer", Type::kInteger}, {"number", Type::kNumber},
      {"string", Type::kString}, {"array", Type::kArray},     {"object", Type::kObject}};
  static constexpr std::pair<std::string_view, Type> kMeant[] = {{"properties", Type::kObject},
                                                                 {"required", Type::kObject},
                                                                 {"additionalProperties", Type::kObject},
                                                                 {"items", Type::kArray},
                                                                 {"prefixItems", Type::kArray},
                                                                 {"minItems", Type::kArray},
                                                                 {"maxItems", Type::kArray},
                                                                 {"minLength", Type::kString},
                                                                 {"maxLength", Type::kString},
                                                                 {"pattern", Type::kString},
                                                                 {"minimum", Type::kNumber},
                                                                 {"maximum", Type::kNumber},
                                                                 {"exclusiveMinimum", Type::kNumber},
                                                                 {"exclusiveMaximum", Type::kNumber}};
  std::vector<Type> types;
  const auto add = [&](Type type) {
    if (std::find(types.begin(), types.end(), type) == types.end()) types.push_back(type);
  };
  const TemplateValue* given = Find(job, "type");
  if (given == nullptr) {
    for (const auto& [keyword, type] : kMeant) {
      if (Find(job, keyword) != nullptr) add(type);
    }
    return types;
  }
  const auto add_named = [&](const TemplateValue& name) {
    const auto* found = std::find_if(std::begin(kNames), std::end(kNames),
                                     [&](const auto& known) { return name.is_string() && known.first == name.text(); });
    if (found == std::end(kNames)) return Fail(job, "type", "names a type that JSON does not have");
    add(found->second);
  };
  if (given->is_list()) {
    for (const TemplateValue& name : given->as_list().items) add_named(name);
    if (types.empty()) Fail(job, "type", "must name a type");
  } else {
    add_named(*given);
  }
  const bool has_number = std::find(types.begin(), types.end(), Type::kNumber) != types.end();
  if (has_number) std::erase(types, Type::kInteger);
  return types;
}

int64_t SchemaCompiler::ReadCount(const Job& job, std::string_view keyword, int64_t otherwise) {
  const TemplateValue* value = Find(job, keyword);
  if (value == nullptr) return otherwise;
  const double count = value->is_int() || value->is_float() ? value->number() : -1;
  if (!(count >= 0) || count != std::floor(count)) {
    Fail(job, keyword, "must be a whole number that is not negative");
    return otherwise;
  }
  return static_cast<int64_t>(std::min(count, 1e15));
}

// Of integers, the next one within the bound; reals have whole bounds only.
std::optional<int64_t> SchemaCompiler::ReadBound(const Job& job, std::string_view keyword, NumberKind kind) {
  const TemplateValue* value = Find(job, keyword);
  if (value == nullptr) return std::nullopt;
  const bool is_exclusive = keyword.starts_with("exclusive"), is_upper = keyword.ends_with("aximum");
  if (!value->is_int() && !(value->is_float() && std::isfinite(value->number()))) {
    Fail(job, keyword, "must be a number");
    return std::nullopt;
  }
  const double number = value->number();
  const bool is_whole = value->is_int() || number == std::floor(number);
  if (kind == NumberKind::kReal && (is_exclusive || !is_whole)) {
    Fail(job, keyword, "is supported for integers only, or as a whole 'minimum' or 'maximum'");
    return std::nullopt;
  }
  const double limit = static_cast<double>(kMaxGrammarInteger);
  int64_t bound = kMaxGrammarInteger;
  if (value->is_int()) {
    bound = std::clamp(value->as_int(), -kMaxGrammarInteger - 2, kMaxGrammarInteger + 2);
  } else {
    const double rounded = is_upper ? std::floor(number) : std::ceil(number);
    bound = static_cast<int64_t>(std::clamp(rounded, -limit - 1024, limit + 1024));
  }
  if (is_exclusive && is_whole) bound += is_upper ? -1 : 1;
  return bound;
}

absl::StatusOr<std::shared_ptr<const Grammar>> CompileJsonSchema(const TemplateValue& schema,
                                                                 const JsonSchemaLimits& limits) {
  GrammarBuilder builder(limits.max_states);
  absl::StatusOr<int32_t> rule = SchemaCompiler(builder, limits).Compile(schema);
  if (!rule.ok()) return rule.status();
  auto grammar = builder.Build(*rule);
  if (!grammar.ok()) return absl::InvalidArgumentError(absl::StrCat("the schema: ", grammar.status().message()));
  return grammar;
}

std::shared_ptr<const Grammar> AnyJsonObject() {
  const auto schema = ParseJsonValue(R"({"type": "object"})");
  auto grammar = CompileJsonSchema(*schema);
  MILLRACE_CHECK(grammar.ok(), "the grammar of any object is our own");
  return *std::move(grammar);
}

}  // namespace millrace
