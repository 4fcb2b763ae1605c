// SPDX-License-Identifier: Apache-2.0
#pragma once
// Python's view of text for the template engine: code points, white space, case. Free functions on UTF-8; a byte that
// is no valid UTF-8 counts as a character of its own. No state.
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "engine/text/template_string.h"

namespace millrace {

std::string ConcatText(std::initializer_list<std::string_view> pieces);

// As text.find(part, from), but linear in the worst case.
size_t FindText(std::string_view text, std::string_view part, size_t from);

bool IsAscii(std::string_view text);
// Bytes of the character at `position`: 1..4. REQUIRES: position < text.size().
size_t CharBytes(std::string_view text, size_t position);
// The code point at `position`; an invalid byte gives U+FFFD.
char32_t CharAt(std::string_view text, size_t position);
size_t CountChars(std::string_view text);
// Byte position of the character with this index (the end for indices beyond). Linear unless ASCII.
size_t CharOffset(std::string_view text, size_t index);
// What is no character becomes U+FFFD.
void AppendCodePoint(char32_t code_point, std::string& out);
bool IsPythonSpace(char32_t code_point);  // str.isspace of one character

// [begin, end) of what str.strip leaves; `chars` empty: white space.
struct TextRange {
  size_t begin = 0;
  size_t end = 0;
};
enum class StripSide { kLeft, kRight, kBoth };
TextRange StripRange(std::string_view text, StripSide side, std::string_view chars = {});
inline TextRange StripSpace(std::string_view text) { return StripRange(text, StripSide::kBoth); }

enum class CaseMapping { kUpper, kLower, kTitle, kCapitalize, kSwap };
// str.upper() and friends. Each run is mapped alone for kUpper and kLower; the others keep runs too.
TemplateString MapCase(const TemplateString& text, CaseMapping mapping);

bool IsAllCased(std::string_view text, CaseMapping mapping);  // str.isupper(), str.islower()
enum class TextClass { kAlpha, kDigit, kAlnum, kSpace };
bool IsAllOfClass(std::string_view text, TextClass char_class);  // str.isalpha() ...; false for ""

}  // namespace millrace
