// SPDX-License-Identifier: Apache-2.0
#pragma once
// Appends a JSON object to a string, member by member. Stack object, one thread; names need no escaping.
#include <cstdint>
#include <string>
#include <string_view>

#include "server/wire/json_writer.h"

namespace millrace {

class JsonObject {
 public:
  explicit JsonObject(std::string& out) : out_(out) { out_ += '{'; }

  JsonObject& Text(std::string_view name, std::string_view value) {
    Name(name);
    AppendJsonString(value, out_);
    return *this;
  }
  JsonObject& Int(std::string_view name, int64_t value) {
    Name(name);
    AppendJsonInt(value, out_);
    return *this;
  }
  JsonObject& Float(std::string_view name, float value) {
    Name(name);
    AppendJsonFloat(value, out_);
    return *this;
  }
  // `json`: a whole value: "null", "true", "[]", an object's text.
  JsonObject& Raw(std::string_view name, std::string_view json) {
    Name(name);
    out_ += json;
    return *this;
  }
  JsonObject& Bool(std::string_view name, bool value) { return Raw(name, value ? "true" : "false"); }
  // Members that are already text, without the braces: "\"a\":1,\"b\":2".
  JsonObject& Members(std::string_view members) {
    if (members.empty()) return *this;
    Separate();
    out_ += members;
    return *this;
  }
  void End() { out_ += '}'; }

 private:
  void Separate() {
    if (!is_empty_) out_ += ',';
    is_empty_ = false;
  }
  void Name(std::string_view name) {
    Separate();
    out_ += '"';
    out_ += name;
    out_ += "\":";
  }

  std::string& out_;
  bool is_empty_ = true;
};

}  // namespace millrace
