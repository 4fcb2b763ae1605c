// SPDX-License-Identifier: Apache-2.0
// Character classes that the pre-tokenizers' patterns speak of. ASCII by table, the rest by ICU. Any thread.
#pragma once

#include <unicode/uchar.h>

#include <array>
#include <cstdint>

namespace millrace {

// Bits of a character's class. kUpperish and kLowerish are the two overlapping letter classes of the o200k pattern.
enum CharClass : uint8_t {
  kLetter = 1,     // \p{L}
  kNumber = 2,     // \p{N}
  kSpace = 4,      // White_Space
  kNewline = 8,    // \r or \n
  kUpperish = 16,  // \p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}
  kLowerish = 32,  // \p{Ll}\p{Lm}\p{Lo}\p{M}
};

uint8_t NonAsciiClassOf(char32_t code_point);

namespace internal {
constexpr std::array<uint8_t, 128> MakeAsciiClasses() {
  std::array<uint8_t, 128> table{};
  for (int c = 'a'; c <= 'z'; ++c) table[c] = kLetter | kLowerish;
  for (int c = 'A'; c <= 'Z'; ++c) table[c] = kLetter | kUpperish;
  for (int c = '0'; c <= '9'; ++c) table[c] = kNumber;
  for (int c = 9; c <= 13; ++c) table[c] = kSpace;
  table[' '] = kSpace;
  table['\n'] |= kNewline;
  table['\r'] |= kNewline;
  return table;
}
inline constexpr std::array<uint8_t, 128> kAsciiClasses = MakeAsciiClasses();
}  // namespace internal

inline uint8_t ClassOf(char32_t code_point) {
  return code_point < 128 ? internal::kAsciiClasses[code_point] : NonAsciiClassOf(code_point);
}

bool IsWhiteSpace(char32_t code_point);   // the White_Space property, as Rust's char::is_whitespace
bool IsNumeric(char32_t code_point);      // Nd, Nl, No
bool IsPunctuation(char32_t code_point);  // ASCII punctuation and symbols, or general category P
bool IsWordChar(char32_t code_point);     // \w of Unicode regular expressions (UTS #18, annex C)
bool IsMark(char32_t code_point);         // general category M

}  // namespace millrace
