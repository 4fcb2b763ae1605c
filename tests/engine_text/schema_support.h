// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the grammar tests share: schemas, a validator of its own that knows nothing of grammars, and the bundled
// vocabulary.
#include <cmath>
#include <regex>
#include <string>

#include "engine/grammar/json_schema.h"
#include "engine/grammar/matcher.h"
#include "engine/text/template_json.h"
#include "tests/engine_text/tokenizer_support.h"

namespace millrace::testing {

inline TemplateValue ParseOrDie(const std::string& text) {
  auto value = ParseJsonValue(text);
  INFO(text << ": " << value.status().message());
  REQUIRE(value.ok());
  return *std::move(value);
}

inline const TemplateValue& ResolveRef(const TemplateValue& root, std::string pointer) {
  const TemplateValue* value = &root;
  for (size_t begin = 2; begin <= pointer.size() && pointer.size() > 1;) {
    const size_t end = std::min(pointer.find('/', begin), pointer.size());
    std::string name = pointer.substr(begin, end - begin);
    if (const size_t slash = name.find("~1"); slash != std::string::npos) name.replace(slash, 2, "/");
    if (const size_t tilde = name.find("~0"); tilde != std::string::npos) name.replace(tilde, 2, "~");
    const bool is_index = value->is_list();
    value = is_index ? &value->as_list().items[std::stoul(name)] : value->as_dict().Find(name);
    begin = end + 1;
  }
  return *value;
}

// As the standard says, for the keywords in our schemas; recursive and slow.
class SchemaValidator {
 public:
  explicit SchemaValidator(const TemplateValue& root) : root_(root) {}
  bool IsValid(const TemplateValue& value) const { return Check(root_, value); }

 private:
  static bool Same(const TemplateValue& a, const TemplateValue& b) {
    int64_t budget = 1 << 20;
    return a.is_bool() == b.is_bool() && ValuesEqual(a, b, budget);
  }
  static bool HasType(const TemplateValue& value, std::string_view type) {
    if (type == "integer") return value.is_int() || (value.is_float() && value.number() == std::floor(value.number()));
    if (type == "number") return value.is_int() || value.is_float();
    if (type == "null") return value.is_none();
    if (type == "boolean") return value.is_bool();
    return type == "string" ? value.is_string() : type == "array" ? value.is_list() : value.is_dict();
  }
  static double Count(const TemplateValue& schema, std::string_view keyword, double otherwise) {
    const TemplateValue* found = schema.as_dict().Find(keyword);
    return found == nullptr ? otherwise : found->number();
  }
  bool CheckNumber(const TemplateValue& schema, double number) const {
    return number >= Count(schema, "minimum", -1e300) && number <= Count(schema, "maximum", 1e300) &&
           number > Count(schema, "exclusiveMinimum", -1e300) && number < Count(schema, "exclusiveMaximum", 1e300);
  }
  bool CheckString(const TemplateValue& schema, std::string_view text) const {
    double length = 0;
    for (const char c : text) length += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
    if (length < Count(schema, "minLength", 0) || length > Count(schema, "maxLength", 1e300)) return false;
    const TemplateValue* pattern = schema.as_dict().Find("pattern");
    return pattern == nullptr || std::regex_search(std::string(text), std::regex(std::string(pattern->text())));
  }
  bool CheckList(const TemplateValue& schema, const std::vector<TemplateValue>& items) const {
    const auto length = static_cast<double>(items.size());
    if (length < Count(schema, "minItems", 0) || length > Count(schema, "maxItems", 1e300)) return false;
    const TemplateValue* prefix = schema.as_dict().Find("prefixItems");
    const TemplateValue* rest = schema.as_dict().Find("items");
    for (size_t i = 0; i < items.size(); ++i) {
      const bool is_prefix = prefix != nullptr && i < prefix->as_list().items.size();
      const TemplateValue* item = is_prefix ? &prefix->as_list().items[i] : rest;
      if (item != nullptr && !Check(*item, items[i])) return false;
    }
    return true;
  }
  bool CheckDict(const TemplateValue& schema, const TemplateDict& value) const {
    const TemplateDict& keywords = schema.as_dict();
    const TemplateValue* properties = keywords.Find("properties");
    const TemplateValue* more = keywords.Find("additionalProperties");
    for (const auto& [key, member] : value.entries()) {
      const TemplateValue* declared = properties == nullptr ? nullptr : properties->as_dict().Find(key);
      if (declared == nullptr) declared = more;
      if (declared != nullptr && !Check(*declared, member)) return false;
    }
    const TemplateValue* required = keywords.Find("required");
    if (required == nullptr) return true;
    for (const TemplateValue& name : required->as_list().items) {
      if (value.Find(name) == nullptr) return false;
    }
    return true;
  }
  bool Check(const TemplateValue& schema, const TemplateValue& value) const {
    if (schema.is_bool()) return schema.as_bool();
    const TemplateDict& keywords = schema.as_dict();
    const auto any = [](const TemplateValue* list, auto&& accepts) {
      if (list == nullptr) return true;
      const auto& items = list->as_list().items;
      return std::any_of(items.begin(), items.end(), accepts);
    };
    if (const auto* ref = keywords.Find("$ref")) return Check(ResolveRef(root_, std::string(ref->text())), value);
    if (!any(keywords.Find("anyOf"), [&](const auto& one) { return Check(one, value); })) return false;
    if (!any(keywords.Find("allOf"), [&](const auto& one) { return Check(one, value); })) return false;
    if (!any(keywords.Find("enum"), [&](const auto& one) { return Same(one, value); })) return false;
    if (const auto* only = keywords.Find("const"); only != nullptr && !Same(*only, value)) return false;
    if (const auto* type = keywords.Find("type")) {
      if (type->is_string() && !HasType(value, type->text())) return false;
      if (type->is_list() && !any(type, [&](const auto& one) { return HasType(value, one.text()); })) return false;
    }
    if (value.is_string()) return CheckString(schema, value.text());
    if (value.is_list()) return CheckList(schema, value.as_list().items);
    if (value.is_dict()) return CheckDict(schema, value.as_dict());
    return value.is_bool() || value.is_none() || CheckNumber(schema, value.number());
  }

  const TemplateValue& root_;
};

inline std::unique_ptr<Tokenizer> BundledTokenizer() {
  return MakeTokenizer(
      ReadFileOrDie(std::filesystem::path(MILLRACE_SOURCE_DIR) / "models/millrace-tiny/tokenizer.json"));
}

}  // namespace millrace::testing
