// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_text.h"

#include <unicode/uchar.h>

#include <cstring>

#include "engine/text/utf8.h"

namespace millrace {
namespace {

bool IsContinuation(std::string_view text, size_t position) {
  return position < text.size() && (static_cast<unsigned char>(text[position]) & 0xc0) == 0x80;
}

// Whether the character that begins at `position` is one of `chars`.
bool IsOneOf(std::string_view text, size_t position, size_t char_bytes, std::string_view chars) {
  if (chars.empty()) return IsPythonSpace(CharAt(text, position));
  const std::string_view wanted = text.substr(position, char_bytes);
  for (size_t i = 0; i < chars.size(); i += CharBytes(chars, i)) {
    if (chars.substr(i, CharBytes(chars, i)) == wanted) return true;
  }
  return false;
}

// Full upper case where one character becomes several; the ones that occur in Latin scripts.
void AppendUpper(char32_t c, std::string& out) {
  if (c == 0xdf) {
    out += "SS";
  } else if (c >= 0xfb00 && c <= 0xfb06) {
    static constexpr std::string_view kLigatures[] = {"FF", "FI", "FL", "FFI", "FFL", "ST", "ST"};
    out += kLigatures[c - 0xfb00];
  } else if (c == 0x149) {
    out += "\xca\xbcN";
  } else {
    AppendCodePoint(static_cast<char32_t>(u_toupper(static_cast<UChar32>(c))), out);
  }
}

void AppendMapped(char32_t c, CaseMapping mapping, std::string& out) {
  const auto code = static_cast<UChar32>(c);
  switch (mapping) {
    case CaseMapping::kUpper:
      AppendUpper(c, out);
      return;
    case CaseMapping::kSwap:
      if (u_isULowercase(code)) {
        AppendUpper(c, out);
        return;
      }
      AppendCodePoint(static_cast<char32_t>(u_isUUppercase(code) ? u_tolower(code) : code), out);
      return;
    case CaseMapping::kTitle:
    case CaseMapping::kCapitalize:
      if (c == 0xdf) {
        out += "Ss";
        return;
      }
      AppendCodePoint(static_cast<char32_t>(u_totitle(code)), out);
      return;
    case CaseMapping::kLower:
      if (c == 0x130) {
        out += "i\xcc\x87";
        return;
      }
      AppendCodePoint(static_cast<char32_t>(u_tolower(code)), out);
      return;
  }
}

bool IsCased(char32_t c) {
  const auto code = static_cast<UChar32>(c);
  return u_hasBinaryProperty(code, UCHAR_CASED) != 0;
}

}  // namespace

std::string ConcatText(std::initializer_list<std::string_view> pieces) {
  std::string out;
  for (const std::string_view piece : pieces) out += piece;
  return out;
}

size_t FindText(std::string_view text, std::string_view part, size_t from) {
  if (from > text.size() || part.size() > text.size() - from) return text.npos;
  if (part.empty()) return from;
  const void* found = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return found == nullptr ? text.npos : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

bool IsAscii(std::string_view text) {
  unsigned char all = 0;
  for (const char c : text) all |= static_cast<unsigned char>(c);
  return all < 0x80;
}

size_t CharBytes(std::string_view text, size_t position) {
  const auto lead = static_cast<unsigned char>(text[position]);
  size_t expected = 1;
  if (lead >= 0xc2 && lead <= 0xdf) expected = 2;
  if (lead >= 0xe0 && lead <= 0xef) expected = 3;
  if (lead >= 0xf0 && lead <= 0xf4) expected = 4;
  for (size_t i = 1; i < expected; ++i) {
    if (!IsContinuation(text, position + i)) return 1;
  }
  return expected;
}

char32_t CharAt(std::string_view text, size_t position) {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[position + i])); };
  switch (CharBytes(text, position)) {
    case 2:
      return ((byte(0) & 0x1f) << 6) | (byte(1) & 0x3f);
    case 3:
      return ((byte(0) & 0x0f) << 12) | ((byte(1) & 0x3f) << 6) | (byte(2) & 0x3f);
    case 4:
      return ((byte(0) & 0x07) << 18) | ((byte(1) & 0x3f) << 12) | ((byte(2) & 0x3f) << 6) | (byte(3) & 0x3f);
    default:
      return byte(0) < 0x80 ? byte(0) : char32_t{0xfffd};
  }
}

size_t CountChars(std::string_view text) {
  if (IsAscii(text)) return text.size();
  size_t count = 0;
  for (size_t i = 0; i < text.size(); i += CharBytes(text, i)) ++count;
  return count;
}

size_t CharOffset(std::string_view text, size_t index) {
  if (IsAscii(text)) return index < text.size() ? index : text.size();
  size_t position = 0;
  for (; index > 0 && position < text.size(); --index) position += CharBytes(text, position);
  return position;
}

void AppendCodePoint(char32_t code_point, std::string& out) {
  const bool is_surrogate = code_point >= 0xd800 && code_point <= 0xdfff;
  AppendUtf8(is_surrogate || code_point > 0x10ffff ? kReplacementChar : code_point, out);
}

bool IsPythonSpace(char32_t c) {
  if (c <= 0x20) return c == 0x20 || (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f);
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
         c == 0x202f || c == 0x205f || c == 0x3000;
}

TextRange StripRange(std::string_view text, StripSide side, std::string_view chars) {
  TextRange range{0, text.size()};
  if (side != StripSide::kRight) {
    while (range.begin < range.end) {
      const size_t char_bytes = CharBytes(text, range.begin);
      if (!IsOneOf(text, range.begin, char_bytes, chars)) break;
      range.begin += char_bytes;
    }
  }
  if (side != StripSide::kLeft) {
    while (range.end > range.begin) {
      size_t start = range.end - 1;
      while (start > range.begin && range.end - start < 4 && IsContinuation(text, start)) --start;
      if (start + CharBytes(text, start) != range.end) start = range.end - 1;
      if (!IsOneOf(text, start, range.end - start, chars)) break;
      range.end = start;
    }
  }
  return range;
}

TemplateString MapCase(const TemplateString& text, CaseMapping mapping) {
  TemplateStringBuilder builder;
  builder.Reserve(text.size_bytes());
  const std::string_view view = text.view();
  size_t position = 0;
  bool is_word_start = true;
  for (const TextRun& run : text.runs()) {
    std::string mapped;
    mapped.reserve(run.end - position);
    while (position < run.end) {
      const char32_t c = CharAt(view, position);
      const size_t char_bytes = CharBytes(view, position);
      if (c == 0xfffd) {
        mapped.append(view.substr(position, char_bytes));
      } else if (mapping == CaseMapping::kTitle || mapping == CaseMapping::kCapitalize) {
        AppendMapped(c, is_word_start ? mapping : CaseMapping::kLower, mapped);
        is_word_start = mapping == CaseMapping::kTitle && !IsCased(c);
      } else {
        AppendMapped(c, mapping, mapped);
      }
      position += char_bytes;
    }
    builder.Append(mapped, run.origin);
  }
  return builder.Build();
}

bool IsAllCased(std::string_view text, CaseMapping mapping) {
  bool has_cased = false;
  for (size_t i = 0; i < text.size(); i += CharBytes(text, i)) {
    const char32_t c = CharAt(text, i);
    if (!IsCased(c)) continue;
    const auto code = static_cast<UChar32>(c);
    if (mapping == CaseMapping::kUpper ? !u_isUUppercase(code) : !u_isULowercase(code)) return false;
    has_cased = true;
  }
  return has_cased;
}

bool IsAllOfClass(std::string_view text, TextClass char_class) {
  if (text.empty()) return false;
  for (size_t i = 0; i < text.size(); i += CharBytes(text, i)) {
    const char32_t c = CharAt(text, i);
    const auto code = static_cast<UChar32>(c);
    const bool is_alpha = u_isalpha(code) != 0;
    const bool is_digit = u_charDigitValue(code) >= 0;
    const bool is_member = char_class == TextClass::kAlpha   ? is_alpha
                           : char_class == TextClass::kDigit ? is_digit
                           : char_class == TextClass::kAlnum ? (is_alpha || is_digit)
                                                             : IsPythonSpace(c);
    if (!is_member) return false;
  }
  return true;
}

}  // namespace millrace
