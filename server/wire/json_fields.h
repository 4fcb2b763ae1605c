// SPDX-License-Identifier: Apache-2.0
#pragma once
// Reads the fields of a request's JSON object: unknown ones are tolerated, wrong types and values are refused with the
// field's name. Stack object, one thread. The document must outlive it.
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/wire/api_error.h"

namespace millrace {

struct JsonLimits {
  int max_depth = 64;
  size_t max_values = 2'000'000;  // commas and opening brackets: bounds what parsing may allocate
};

// Parses within the limits. InvalidArgument with the position: malformed, too deep, too many values, not UTF-8.
absl::StatusOr<nlohmann::json> ParseJson(std::string_view text, const JsonLimits& limits = {});

class JsonFields {
 public:
  // `path` is put before the names in errors: "stream_options." for the fields within it.
  explicit JsonFields(const nlohmann::json& object, std::string path = "");

  // Each reads one field if it is there and not null, and remembers the first error. A bound is inclusive.
  void Read(const char* name, bool& out);
  void Read(const char* name, std::string& out);
  void ReadNumber(const char* name, double low, double high, std::optional<float>& out);
  void ReadNumber(const char* name, double low, double high, float& out);
  void ReadInt(const char* name, int64_t low, int64_t high, int32_t& out);
  void ReadInt(const char* name, int64_t low, int64_t high, std::optional<int32_t>& out);
  void ReadSeed(const char* name, std::optional<uint64_t>& out);
  // A string, or a list of at most `max_items` strings.
  void ReadStrings(const char* name, size_t max_items, std::vector<std::string>& out);
  void ReadTokenIds(const char* name, size_t max_items, std::vector<int32_t>& out);
  // {"token id": bias in [-100, 100]}
  void ReadLogitBias(const char* name, std::vector<std::pair<int32_t, float>>& out);

  // The field if it is there and not null, else null.
  const nlohmann::json* Find(const char* name) const;
  // Refuses a field that we know of but do not serve, unless it has a harmless value.
  void RefuseUnlessNull(const char* name, std::string_view why = "is not supported yet");
  void Fail(const char* name, std::string_view message, std::string_view code = kInvalidValue);
  // Takes over the error of an inner object's fields.
  void Adopt(const JsonFields& inner) {
    if (status_.ok()) status_ = inner.status_;
  }
  const absl::Status& status() const { return status_; }
  const std::string& path() const { return path_; }

 private:
  void WrongType(const char* name, std::string_view expected, const nlohmann::json& found);
  bool Number(const char* name, double low, double high, double& out);
  bool Integer(const char* name, int64_t low, int64_t high, int64_t& out);

  const nlohmann::json& object_;
  const std::string path_;
  absl::Status status_;
};

}  // namespace millrace
