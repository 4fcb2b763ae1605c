// SPDX-License-Identifier: Apache-2.0
#include "engine/text/utf8.h"

#include <simdjson.h>

namespace millrace {

void AppendUtf8(char32_t code_point, std::string& out) {
  if (code_point < 0x80) {
    out.push_back(static_cast<char>(code_point));
  } else if (code_point < 0x800) {
    out.push_back(static_cast<char>(0xC0 | (code_point >> 6)));
    out.push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
  } else if (code_point < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | (code_point >> 12)));
    out.push_back(static_cast<char>(0x80 | ((code_point >> 6) & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
  } else {
    out.push_back(static_cast<char>(0xF0 | (code_point >> 18)));
    out.push_back(static_cast<char>(0x80 | ((code_point >> 12) & 0x3F)));
    out.push_back(static_cast<char>(0x80 | ((code_point >> 6) & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
  }
}

bool IsValidUtf8(std::string_view text) { return simdjson::validate_utf8(text.data(), text.size()); }

Utf8Step CheckUtf8At(std::string_view text, size_t position) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[position + i]); };
  const size_t left = text.size() - position;
  const unsigned lead = byte(0);
  if (lead < 0x80) return {Utf8Fault::kNone, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8Fault::kInvalid, 1};
  const uint32_t needed = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range excludes overlong forms, surrogates and code points above U+10FFFF.
  unsigned low = 0x80, high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (uint32_t i = 1; i < needed; ++i) {
    if (i >= left) return {Utf8Fault::kIncomplete, i};
    if (byte(i) < low || byte(i) > high) return {Utf8Fault::kInvalid, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8Fault::kNone, needed};
}

void AppendRepairedUtf8(std::string_view text, std::string& out) {
  size_t clean_begin = 0;
  for (size_t i = 0; i < text.size();) {
    const Utf8Step step = CheckUtf8At(text, i);
    if (step.fault != Utf8Fault::kNone) {
      out.append(text.substr(clean_begin, i - clean_begin));
      out.append(kReplacementUtf8);
      clean_begin = i + step.num_bytes;
    }
    i += step.num_bytes;
  }
  out.append(text.substr(clean_begin));
}

}  // namespace millrace
