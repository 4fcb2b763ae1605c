// SPDX-License-Identifier: Apache-2.0
#include "agent/argument_check.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "agent/tool.h"
#include "engine/text/template_json.h"
#include "engine/text/template_value.h"

namespace millrace {
namespace {

constexpr int kMaxDepth = 64;            // of the schema; below it anything is allowed
constexpr int64_t kMaxSteps = 1 << 20;   // values and names looked at; beyond, anything is allowed
constexpr size_t kMaxQuotedBytes = 100;  // of a name in a message

std::string Quoted(std::string_view name) {
  return absl::StrCat("'", std::string(name.substr(0, kMaxQuotedBytes)), "'");
}

class Checker {
 public:
  absl::Status Check(const TemplateValue& schema, const TemplateValue& value, const std::string& path, int depth) {
    if (schema.is_bool()) return schema.as_bool() ? absl::OkStatus() : Fault(path, "is not allowed");
    if (!schema.is_dict() || depth >= kMaxDepth || --steps_ < 0) return absl::OkStatus();
    const TemplateDict& dict = schema.as_dict();
    if (absl::Status status = CheckType(dict, value, path); !status.ok()) return status;
    if (absl::Status status = CheckChoice(dict, value, path); !status.ok()) return status;
    if (absl::Status status = CheckCombined(dict, value, path, depth); !status.ok()) return status;
    if (value.is_dict()) return CheckObject(dict, value.as_dict(), path, depth);
    if (value.is_list()) return CheckArray(dict, value.as_list().items, path, depth);
    if (value.is_string()) return CheckCount(dict, "minLength", "maxLength", Length(value.text()), path);
    if (value.is_int() || value.is_float()) return CheckNumber(dict, value.number(), path);
    return absl::OkStatus();
  }

 private:
  static absl::Status Fault(const std::string& path, std::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.empty() ? "the arguments" : path, path.empty() ? " " : ": ", std::string(what)));
  }
  static std::string Join(const std::string& path, std::string_view name) {
    return absl::StrCat(path, path.empty() ? "" : ".", std::string(name.substr(0, kMaxQuotedBytes)));
  }
  static int64_t Length(std::string_view text) {
    return std::count_if(text.begin(), text.end(), [](char byte) { return (byte & 0xC0) != 0x80; });
  }
  static bool IsOfType(std::string_view type, const TemplateValue& value) {
    if (type == "object") return value.is_dict();
    if (type == "array") return value.is_list();
    if (type == "string") return value.is_string();
    if (type == "boolean") return value.is_bool();
    if (type == "null") return value.is_none();
    if (type == "number") return value.is_int() || value.is_float();
    if (type != "integer") return true;
    return value.is_int() ||
           (value.is_float() &&
            value.as_float() == static_cast<double>(static_cast<int64_t>(std::clamp(value.as_float(), -9e18, 9e18))));
  }

  absl::Status CheckType(const TemplateDict& schema, const TemplateValue& value, const std::string& path) {
    const TemplateValue* type = schema.Find("type");
    if (type == nullptr) return absl::OkStatus();
    if (type->is_string()) {
      if (IsOfType(type->text(), value)) return absl::OkStatus();
      const bool has_vowel = type->text() == "object" || type->text() == "array" || type->text() == "integer";
      return Fault(path, absl::StrCat("must be ", has_vowel ? "an " : "a ", std::string(type->text())));
    }
    if (!type->is_list()) return absl::OkStatus();
    for (const TemplateValue& each : type->as_list().items) {
      if (--steps_ < 0 || !each.is_string() || IsOfType(each.text(), value)) return absl::OkStatus();
    }
    return Fault(path, "has a type that is not allowed");
  }

  // As JSON sees it: 1 is 1.0, but no boolean.
  bool IsSame(const TemplateValue& a, const TemplateValue& b, int depth = 0) {
    if (depth >= kMaxDepth || --steps_ < 0) return true;
    if (a.is_list() && b.is_list()) {
      const std::vector<TemplateValue>& left = a.as_list().items;
      const std::vector<TemplateValue>& right = b.as_list().items;
      return std::equal(left.begin(), left.end(), right.begin(), right.end(),
                        [&](const TemplateValue& x, const TemplateValue& y) { return IsSame(x, y, depth + 1); });
    }
    if (a.is_dict() && b.is_dict()) {
      if (a.as_dict().size() != b.as_dict().size()) return false;
      return std::all_of(a.as_dict().entries().begin(), a.as_dict().entries().end(), [&](const auto& entry) {
        const TemplateValue* other = b.as_dict().Find(entry.first);
        return other != nullptr && IsSame(entry.second, *other, depth + 1);
      });
    }
    return a.is_bool() == b.is_bool() && ValuesEqual(a, b, steps_);
  }

  absl::Status CheckChoice(const TemplateDict& schema, const TemplateValue& value, const std::string& path) {
    const TemplateValue* constant = schema.Find("const");
    if (constant != nullptr && !IsSame(*constant, value)) return Fault(path, "has not the one value that is allowed");
    const TemplateValue* choices = schema.Find("enum");
    if (choices == nullptr || !choices->is_list()) return absl::OkStatus();
    std::string names;
    for (const TemplateValue& each : choices->as_list().items) {
      if (IsSame(each, value)) return absl::OkStatus();
      if (each.is_string() && names.size() < 500)
        absl::StrAppend(&names, names.empty() ? "" : ", ", Quoted(each.text()));
    }
    return Fault(path, names.empty() ? "is none of the allowed values" : absl::StrCat("must be one of ", names));
  }

  absl::Status CheckCombined(const TemplateDict& schema, const TemplateValue& value, const std::string& path,
                             int depth) {
    const TemplateValue* all = schema.Find("allOf");
    if (all != nullptr && all->is_list()) {
      for (const TemplateValue& each : all->as_list().items) {
        if (absl::Status status = Check(each, value, path, depth + 1); !status.ok()) return status;
      }
    }
    for (const char* name : {"anyOf", "oneOf"}) {
      const TemplateValue* any = schema.Find(name);
      if (any == nullptr || !any->is_list() || any->as_list().items.empty()) continue;
      absl::Status first;
      bool is_met = false;
      for (const TemplateValue& each : any->as_list().items) {
        absl::Status status = Check(each, value, path, depth + 1);
        is_met = is_met || status.ok();
        if (first.ok()) first = std::move(status);
      }
      if (!is_met) return first;
    }
    return absl::OkStatus();
  }

  absl::Status CheckObject(const TemplateDict& schema, const TemplateDict& object, const std::string& path, int depth) {
    const TemplateValue* required = schema.Find("required");
    if (required != nullptr && required->is_list()) {
      for (const TemplateValue& name : required->as_list().items) {
        if (--steps_ < 0) return absl::OkStatus();
        if (!name.is_string() || object.Find(name.text()) != nullptr) continue;
        return Fault(path, absl::StrCat(Quoted(name.text()), " is missing"));
      }
    }
    const TemplateValue* properties = schema.Find("properties");
    const TemplateValue* others = schema.Find("additionalProperties");
    const bool has_patterns = schema.Find("patternProperties") != nullptr;
    for (const auto& [name, value] : object.entries()) {
      const TemplateValue* property =
          properties != nullptr && properties->is_dict() ? properties->as_dict().Find(name) : nullptr;
      if (property == nullptr && others != nullptr && others->is_bool() && !others->as_bool() && !has_patterns) {
        return Fault(path, absl::StrCat("there is no ", Quoted(name.text())));
      }
      if (property == nullptr && !has_patterns) property = others;
      if (property == nullptr) continue;
      absl::Status status = Check(*property, value, Join(path, name.text()), depth + 1);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status CheckArray(const TemplateDict& schema, const std::vector<TemplateValue>& items, const std::string& path,
                          int depth) {
    const auto count = static_cast<int64_t>(items.size());
    if (absl::Status status = CheckCount(schema, "minItems", "maxItems", count, path); !status.ok()) return status;
    const TemplateValue* each = schema.Find("items");
    if (each == nullptr || each->is_list() || schema.Find("prefixItems") != nullptr) return absl::OkStatus();
    for (size_t i = 0; i < items.size(); ++i) {
      absl::Status status = Check(*each, items[i], absl::StrCat(path, "[", i, "]"), depth + 1);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  static const TemplateValue* Number(const TemplateDict& schema, const char* name) {
    const TemplateValue* value = schema.Find(name);
    return value != nullptr && (value->is_int() || value->is_float()) ? value : nullptr;
  }

  static absl::Status CheckCount(const TemplateDict& schema, const char* least, const char* most, int64_t count,
                                 const std::string& path) {
    const TemplateValue* min = Number(schema, least);
    if (min != nullptr && static_cast<double>(count) < min->number()) {
      return Fault(path, absl::StrCat("is too short: ", min->number(), " at least"));
    }
    const TemplateValue* max = Number(schema, most);
    if (max != nullptr && static_cast<double>(count) > max->number()) {
      return Fault(path, absl::StrCat("is too long: ", max->number(), " at most"));
    }
    return absl::OkStatus();
  }

  static absl::Status CheckNumber(const TemplateDict& schema, double number, const std::string& path) {
    const TemplateValue* min = Number(schema, "minimum");
    const TemplateValue* above = Number(schema, "exclusiveMinimum");
    const TemplateValue* max = Number(schema, "maximum");
    const TemplateValue* below = Number(schema, "exclusiveMaximum");
    if (min != nullptr && number < min->number()) return Fault(path, absl::StrCat("must be at least ", min->number()));
    if (above != nullptr && number <= above->number()) {
      return Fault(path, absl::StrCat("must be more than ", above->number()));
    }
    if (max != nullptr && number > max->number()) return Fault(path, absl::StrCat("must be at most ", max->number()));
    if (below != nullptr && number >= below->number()) {
      return Fault(path, absl::StrCat("must be less than ", below->number()));
    }
    return absl::OkStatus();
  }

  int64_t steps_ = kMaxSteps;
};

}  // namespace

absl::Status CheckArguments(std::string_view schema, std::string_view arguments) {
  if (arguments.size() > kMaxToolArgumentsBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the arguments have ", arguments.size(), " bytes, at most ",
                                                   kMaxToolArgumentsBytes, " are taken"));
  }
  const auto value = ParseJsonValue(arguments);
  if (!value.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("the arguments are no JSON: ", value.status().message()));
  }
  if (!value->is_dict()) return absl::InvalidArgumentError("the arguments are no JSON object");
  const auto parsed_schema = ParseJsonValue(schema);
  if (!parsed_schema.ok()) return absl::OkStatus();
  return Checker().Check(*parsed_schema, *value, "", 0);
}

}  // namespace millrace
