// SPDX-License-Identifier: Apache-2.0
#include "engine/text/json_slices.h"

#include <cstddef>

namespace millrace {
namespace {

constexpr std::string_view kSpace = " \t\n\r";

size_t SkipSpace(std::string_view text, size_t at) {
  const size_t next = text.find_first_not_of(kSpace, at);
  return next == std::string_view::npos ? text.size() : next;
}

// The offset behind the value that begins at `at`.
size_t SkipValue(std::string_view text, size_t at) {
  int depth = 0;
  bool is_in_string = false;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (is_in_string) {
      if (c == '\\') ++at;
      if (c == '"') is_in_string = false;
      if (c == '"' && depth == 0) return at + 1;
    } else if (c == '"') {
      is_in_string = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (depth == 0) return at;  // the end of what holds a bare value
      if (--depth == 0) return at + 1;
    } else if (depth == 0 && (c == ',' || kSpace.find(c) != std::string_view::npos)) {
      return at;
    }
  }
  return at;
}

}  // namespace

std::vector<std::pair<std::string_view, std::string_view>> JsonSlices(std::string_view json) {
  std::vector<std::pair<std::string_view, std::string_view>> slices;
  size_t at = SkipSpace(json, 0);
  const bool is_object = at < json.size() && json[at] == '{';
  at = SkipSpace(json, at + 1);
  while (at < json.size() && json[at] != '}' && json[at] != ']') {
    std::string_view key;
    if (is_object) {
      const size_t key_end = SkipValue(json, at);
      key = json.substr(at + 1, key_end - at - 2);
      at = SkipSpace(json, SkipSpace(json, key_end) + 1);  // over the colon
    }
    const size_t end = SkipValue(json, at);
    slices.emplace_back(key, json.substr(at, end - at));
    at = SkipSpace(json, end);
    if (at < json.size() && json[at] == ',') at = SkipSpace(json, at + 1);
  }
  return slices;
}

}  // namespace millrace
