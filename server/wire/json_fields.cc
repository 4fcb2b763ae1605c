// SPDX-License-Identifier: Apache-2.0
#include "server/wire/json_fields.h"

#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

using nlohmann::json;

absl::string_view Absl(std::string_view text) { return {text.data(), text.size()}; }

// A look at the brackets before anything is allocated.
absl::Status CheckShape(std::string_view text, const JsonLimits& limits) {
  int depth = 0;
  size_t num_values = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    switch (text[i]) {
      case '"':
        for (++i; i < text.size() && text[i] != '"'; ++i) {
          if (text[i] == '\\') ++i;
        }
        break;
      case '[':
      case '{':
        ++num_values;
        if (++depth > limits.max_depth) {
          return absl::InvalidArgumentError(absl::StrCat("the JSON body nests deeper than ", limits.max_depth));
        }
        break;
      case ']':
      case '}':
        --depth;
        break;
      case ',':
        ++num_values;
        break;
      default:
        break;
    }
  }
  if (num_values > limits.max_values) {
    return absl::InvalidArgumentError(absl::StrCat("the JSON body has more than ", limits.max_values, " values"));
  }
  return absl::OkStatus();
}

// Runs only after a parse failed, to say where and why.
struct ErrorFinder : nlohmann::json_sax<json> {
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return true; }
  bool key(string_t&) override { return true; }
  bool end_object() override { return true; }
  bool start_array(std::size_t) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(std::size_t at, const std::string& token, const nlohmann::detail::exception& error) override {
    position = at;
    // The library's text quotes the input, which may be long or not UTF-8; its middle part says enough.
    message = error.what();
    const size_t colon = message.find(": ");
    if (colon != std::string::npos) message = message.substr(colon + 2);
    const size_t last_read = message.find("; last read");
    if (last_read != std::string::npos) message.resize(last_read);
    if (message.size() > 200) message.resize(200);
    return false;
  }
  size_t position = 0;
  std::string message;
};

}  // namespace

absl::StatusOr<json> ParseJson(std::string_view text, const JsonLimits& limits) {
  if (absl::Status status = CheckShape(text, limits); !status.ok()) return WithErrorCode(status, "invalid_json");
  json document = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!document.is_discarded()) return document;
  ErrorFinder finder;
  json::sax_parse(text.begin(), text.end(), &finder);
  return WithErrorCode(absl::InvalidArgumentError(
                           absl::StrCat("the body is not valid JSON at byte ", finder.position, ": ", finder.message)),
                       "invalid_json");
}

JsonFields::JsonFields(const json& object, std::string path) : object_(object), path_(std::move(path)) {}

const json* JsonFields::Find(const char* name) const {
  if (!object_.is_object()) return nullptr;
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void JsonFields::Fail(const char* name, std::string_view message, std::string_view code) {
  if (!status_.ok()) return;
  const std::string param = path_ + name;
  status_ = ParamError(param, absl::StrCat("'", param, "' ", Absl(message)), code);
}

void JsonFields::WrongType(const char* name, std::string_view expected, const json& found) {
  Fail(name, absl::StrCat("must be ", Absl(expected), ", not ", found.type_name()), kInvalidType);
}

void JsonFields::RefuseUnlessNull(const char* name, std::string_view why) {
  if (Find(name) != nullptr) Fail(name, why, kUnsupportedParameter);
}

void JsonFields::Read(const char* name, bool& out) {
  const json* value = Find(name);
  if (value == nullptr) return;
  if (!value->is_boolean()) return WrongType(name, "a boolean", *value);
  out = value->get<bool>();
}

void JsonFields::Read(const char* name, std::string& out) {
  const json* value = Find(name);
  if (value == nullptr) return;
  if (!value->is_string()) return WrongType(name, "a string", *value);
  out = value->get_ref<const std::string&>();
}

bool JsonFields::Number(const char* name, double low, double high, double& out) {
  const json* value = Find(name);
  if (value == nullptr) return false;
  if (!value->is_number()) {
    WrongType(name, "a number", *value);
    return false;
  }
  out = value->get<double>();
  if (out >= low && out <= high) return true;
  Fail(name, absl::StrCat("must be between ", low, " and ", high, ", not ", out));
  return false;
}

void JsonFields::ReadNumber(const char* name, double low, double high, std::optional<float>& out) {
  double value = 0;
  if (Number(name, low, high, value)) out = static_cast<float>(value);
}

void JsonFields::ReadNumber(const char* name, double low, double high, float& out) {
  double value = 0;
  if (Number(name, low, high, value)) out = static_cast<float>(value);
}

bool JsonFields::Integer(const char* name, int64_t low, int64_t high, int64_t& out) {
  const json* value = Find(name);
  if (value == nullptr) return false;
  if (!value->is_number_integer()) {
    WrongType(name, "an integer", *value);
    return false;
  }
  // Beyond int64 the library stores an unsigned number.
  const bool is_huge = value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{INT64_MAX};
  out = is_huge ? INT64_MAX : value->get<int64_t>();
  if (out >= low && out <= high && !is_huge) return true;
  Fail(name, absl::StrCat("must be between ", low, " and ", high, ", not ", value->dump()));
  return false;
}

void JsonFields::ReadInt(const char* name, int64_t low, int64_t high, int32_t& out) {
  int64_t value = 0;
  if (Integer(name, low, high, value)) out = static_cast<int32_t>(value);
}

void JsonFields::ReadInt(const char* name, int64_t low, int64_t high, std::optional<int32_t>& out) {
  int64_t value = 0;
  if (Integer(name, low, high, value)) out = static_cast<int32_t>(value);
}

void JsonFields::ReadSeed(const char* name, std::optional<uint64_t>& out) {
  const json* value = Find(name);
  if (value == nullptr) return;
  if (!value->is_number_integer()) return WrongType(name, "an integer", *value);
  out = value->is_number_unsigned() ? value->get<uint64_t>() : static_cast<uint64_t>(value->get<int64_t>());
}

void JsonFields::ReadStrings(const char* name, size_t max_items, std::vector<std::string>& out) {
  const json* value = Find(name);
  if (value == nullptr) return;
  if (value->is_string()) {
    out.push_back(value->get<std::string>());
    return;
  }
  if (!value->is_array()) return WrongType(name, "a string or a list of strings", *value);
  if (value->size() > max_items) return Fail(name, absl::StrCat("has more than ", max_items, " items"));
  for (const json& item : *value) {
    if (!item.is_string()) return WrongType(name, "a list of strings", item);
    out.push_back(item.get<std::string>());
  }
}

void JsonFields::ReadTokenIds(const char* name, size_t max_items, std::vector<int32_t>& out) {
  const json* value = Find(name);
  if (value == nullptr) return;
  if (!value->is_array()) return WrongType(name, "a list of token ids", *value);
  if (value->size() > max_items) return Fail(name, absl::StrCat("has more than ", max_items, " items"));
  for (const json& item : *value) {
    if (!item.is_number_integer()) return WrongType(name, "a list of integers", item);
    const double token = item.get<double>();
    if (token < 0 || token > INT32_MAX) return Fail(name, absl::StrCat("has no token id ", item.dump()));
    out.push_back(item.get<int32_t>());
  }
}

void JsonFields::ReadLogitBias(const char* name, std::vector<std::pair<int32_t, float>>& out) {
  const json* value = Find(name);
  if (value == nullptr) return;
  if (!value->is_object()) return WrongType(name, "an object of token ids and biases", *value);
  if (value->size() > 1024) return Fail(name, "has more than 1024 items");
  for (const auto& [key, bias] : value->items()) {
    int32_t token = -1;
    if (!absl::SimpleAtoi(key, &token)) return Fail(name, "has a key that is not a token id");
    if (!bias.is_number()) return WrongType(name, "an object of numbers", bias);
    const double number = bias.get<double>();
    if (!(number >= -100 && number <= 100)) return Fail(name, "has a bias outside -100 to 100");
    out.emplace_back(token, static_cast<float>(number));
  }
}

}  // namespace millrace
