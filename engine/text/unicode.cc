// SPDX-License-Identifier: Apache-2.0
#include "engine/text/unicode.h"

namespace millrace {
namespace {

bool InCategories(char32_t code_point, uint32_t mask) {
  return (U_MASK(u_charType(static_cast<UChar32>(code_point))) & mask) != 0;
}

}  // namespace

uint8_t NonAsciiClassOf(char32_t code_point) {
  const uint32_t category = U_MASK(u_charType(static_cast<UChar32>(code_point)));
  if (category & (U_GC_LU_MASK | U_GC_LT_MASK)) return kLetter | kUpperish;
  if (category & U_GC_LL_MASK) return kLetter | kLowerish;
  if (category & (U_GC_LM_MASK | U_GC_LO_MASK)) return kLetter | kUpperish | kLowerish;
  if (category & U_GC_M_MASK) return kUpperish | kLowerish;
  if (category & U_GC_N_MASK) return kNumber;
  return IsWhiteSpace(code_point) ? kSpace : 0;
}

bool IsWhiteSpace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  if (c == 0x85 || c == 0xA0 || c == 0x1680) return true;
  return (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsNumeric(char32_t c) { return c < 0x80 ? c >= '0' && c <= '9' : InCategories(c, U_GC_N_MASK); }

bool IsPunctuation(char32_t c) {
  if (c < 0x80) {
    return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
  }
  return InCategories(c, U_GC_P_MASK);
}

bool IsWordChar(char32_t c) {
  if (c < 0x80) return (ClassOf(c) & (kLetter | kNumber)) != 0 || c == '_';
  return InCategories(c, U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK) ||
         u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_ALPHABETIC) ||
         u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_JOIN_CONTROL);
}

bool IsMark(char32_t c) { return c >= 0x80 && InCategories(c, U_GC_M_MASK); }

}  // namespace millrace
