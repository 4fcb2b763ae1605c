// SPDX-License-Identifier: Apache-2.0
#pragma once
// Reads numbers out of committed golden files; test code only, so a missing field simply fails the test.
#include <simdjson.h>

#include <string>
#include <string_view>
#include <vector>

namespace millrace {

class GoldenFile {
 public:
  explicit GoldenFile(const std::string& path) : json_(simdjson::padded_string::load(path).value()) {
    root_ = parser_.parse(json_).value();
  }
  simdjson::dom::element root() const { return root_; }
  template <typename T>
  std::vector<T> Numbers(std::string_view pointer) const {
    return ToNumbers<T>(root_.at_pointer(pointer).value());
  }
  template <typename T>
  static std::vector<T> ToNumbers(simdjson::dom::element array) {
    std::vector<T> values;
    const simdjson::dom::array elements = array.get_array().value();
    for (const simdjson::dom::element value : elements) {
      values.push_back(static_cast<T>(value.get_double().value()));
    }
    return values;
  }

 private:
  simdjson::padded_string json_;
  simdjson::dom::parser parser_;
  simdjson::dom::element root_;
};

}  // namespace millrace
