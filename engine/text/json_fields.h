// SPDX-License-Identifier: Apache-2.0
// Reading single fields of a parsed JSON document with errors that name the field. Internal to engine/text's sources;
// no public header includes it.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>
#include <simdjson.h>

#include <optional>
#include <string>
#include <string_view>

namespace millrace {

using JsonElement = simdjson::dom::element;
using JsonObject = simdjson::dom::object;
using JsonArray = simdjson::dom::array;

inline absl::Status WrongType(std::string_view where, std::string_view key, std::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(where), ": '", std::string(key), "' must be ", std::string(wanted)));
}

// The field, or nullopt where it is missing or null.
inline std::optional<JsonElement> Field(const JsonObject& object, std::string_view key) {
  JsonElement value;
  if (object.at_key(key).get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
  return value;
}

inline absl::StatusOr<bool> BoolField(std::string_view where, const JsonObject& object, std::string_view key,
                                      bool fallback) {
  const auto value = Field(object, key);
  bool result = fallback;
  if (value && value->get(result) != simdjson::SUCCESS) return WrongType(where, key, "true or false");
  return result;
}

inline absl::StatusOr<int64_t> IntField(std::string_view where, const JsonObject& object, std::string_view key,
                                        int64_t fallback) {
  const auto value = Field(object, key);
  int64_t result = fallback;
  if (value && value->get(result) != simdjson::SUCCESS) return WrongType(where, key, "an integer");
  return result;
}

// Views stay valid as long as the parser.
inline absl::StatusOr<std::string_view> StringField(std::string_view where, const JsonObject& object,
                                                    std::string_view key, std::string_view fallback) {
  const auto value = Field(object, key);
  std::string_view result = fallback;
  if (value && value->get(result) != simdjson::SUCCESS) return WrongType(where, key, "a string");
  return result;
}

inline absl::StatusOr<JsonObject> AsObject(std::string_view where, const JsonElement& element) {
  JsonObject object;
  if (element.get(object) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(where), " must be an object"));
  }
  return object;
}

inline absl::StatusOr<JsonArray> ArrayField(std::string_view where, const JsonObject& object, std::string_view key) {
  const auto value = Field(object, key);
  JsonArray array;
  if (!value || value->get(array) != simdjson::SUCCESS) return WrongType(where, key, "a list");
  return array;
}

}  // namespace millrace
