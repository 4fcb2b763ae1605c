// SPDX-License-Identifier: Apache-2.0
// UTF-8: decoding, repair of broken input, and the boundary of an incomplete tail.
// Pure functions on bytes, any thread. Knows nothing about tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace millrace {

inline constexpr char32_t kReplacementChar = 0xFFFD;
inline constexpr std::string_view kReplacementUtf8 = "\xEF\xBF\xBD";

struct Utf8Char {
  char32_t code_point;
  uint32_t num_bytes;
};

// The character at `text[position]`. REQUIRES: text is valid UTF-8 and position a character border inside it.
inline Utf8Char Utf8At(std::string_view text, size_t position) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data()) + position;
  const uint32_t lead = p[0];
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {((lead & 0x1F) << 6) | (p[1] & 0x3Fu), 2};
  if (lead < 0xF0) return {((lead & 0x0F) << 12) | ((p[1] & 0x3Fu) << 6) | (p[2] & 0x3Fu), 3};
  return {((lead & 0x07) << 18) | ((p[1] & 0x3Fu) << 12) | ((p[2] & 0x3Fu) << 6) | (p[3] & 0x3Fu), 4};
}

// The character that ends at `end`. REQUIRES: as Utf8At, and end > 0.
inline Utf8Char Utf8Before(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return Utf8At(text, begin);
}

void AppendUtf8(char32_t code_point, std::string& out);

bool IsValidUtf8(std::string_view text);

enum class Utf8Fault : uint8_t { kNone, kInvalid, kIncomplete };

struct Utf8Step {
  Utf8Fault fault;
  uint32_t num_bytes;  // the character, or the maximal broken part to be replaced by one U+FFFD
};

// Looks at possibly broken bytes at `position` (REQUIRES: inside text). kIncomplete: the text ends inside a character
// that could still become valid. The maximal parts are those of the Unicode standard, section 3.9, as in WHATWG.
Utf8Step CheckUtf8At(std::string_view text, size_t position);

// Appends `text` with every maximal broken part replaced by U+FFFD.
void AppendRepairedUtf8(std::string_view text, std::string& out);

}  // namespace millrace
