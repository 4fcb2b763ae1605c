// SPDX-License-Identifier: Apache-2.0
#include "engine/text/scanners.h"

#include "engine/text/unicode.h"
#include "engine/text/utf8.h"

namespace millrace {
namespace {

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kO200kPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct Char {
  uint8_t char_class;
  uint32_t num_bytes;
};

Char CharAt(std::string_view text, size_t position) {
  const auto byte = static_cast<unsigned char>(text[position]);
  if (byte < 0x80) return {internal::kAsciiClasses[byte], 1};
  const Utf8Char c = Utf8At(text, position);
  return {NonAsciiClassOf(c.code_point), c.num_bytes};
}

// The end of the run of characters whose class has a bit of `any` (kHas), or none of its bits (kLacks).
template <bool kHas>
size_t RunEnd(std::string_view text, size_t position, uint8_t any) {
  while (position < text.size()) {
    const Char c = CharAt(text, position);
    if (((c.char_class & any) != 0) != kHas) break;
    position += c.num_bytes;
  }
  return position;
}

char LowerAscii(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

// (?i:'s|'t|'re|'ve|'m|'ll|'d) at `begin`; `begin` itself when it does not match. U+017F folds to 's'.
template <bool kIgnoreCase>
size_t ContractionEnd(std::string_view text, size_t begin) {
  if (begin + 1 >= text.size() || text[begin] != '\'') return begin;
  const auto at = [&](size_t i) {
    if (begin + i >= text.size()) return '\0';
    return kIgnoreCase ? LowerAscii(text[begin + i]) : text[begin + i];
  };
  switch (at(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return begin + 2;
    case 'r':
    case 'v':
      return at(2) == 'e' ? begin + 3 : begin;
    case 'l':
      return at(2) == 'l' ? begin + 3 : begin;
    default:
      return kIgnoreCase && text.substr(begin + 1, 2) == "\xC5\xBF" ? begin + 3 : begin;
  }
}

// \s+(?!\S)|\s+ at a space character: the run, less its last character when more text follows and the run has two.
size_t SpaceEnd(std::string_view text, size_t begin) {
  size_t last = begin;
  size_t end = begin;
  while (end < text.size()) {
    const Char c = CharAt(text, end);
    if ((c.char_class & kSpace) == 0) break;
    last = end;
    end += c.num_bytes;
  }
  return end == text.size() || last == begin ? end : last;
}

// \s*[\r\n]+|\s+(?!\S)|\s+ at a space character: through the last newline of the run, else as SpaceEnd.
size_t SpaceOrNewlineEnd(std::string_view text, size_t begin) {
  size_t last = begin;
  size_t end = begin;
  size_t after_newline = begin;
  while (end < text.size()) {
    const Char c = CharAt(text, end);
    if ((c.char_class & kSpace) == 0) break;
    last = end;
    end += c.num_bytes;
    if (c.char_class & kNewline) after_newline = end;
  }
  if (after_newline > begin) return after_newline;
  return end == text.size() || last == begin ? end : last;
}

size_t ScanGpt2(std::string_view text, size_t begin) {
  if (text[begin] == '\'') {
    const size_t end = ContractionEnd<false>(text, begin);
    if (end > begin) return end;
  }
  const size_t start = begin + (text[begin] == ' ' ? 1 : 0);
  if (start < text.size()) {
    const Char c = CharAt(text, start);
    if (c.char_class & kLetter) return RunEnd<true>(text, start + c.num_bytes, kLetter);
    if (c.char_class & kNumber) return RunEnd<true>(text, start + c.num_bytes, kNumber);
    if ((c.char_class & kSpace) == 0) {
      return RunEnd<false>(text, start + c.num_bytes, kSpace | kLetter | kNumber);
    }
  }
  return SpaceEnd(text, begin);
}

size_t DigitsEnd(std::string_view text, size_t begin, int max_digits) {
  size_t end = begin;
  for (int i = 0; i < max_digits && end < text.size(); ++i) {
    const Char c = CharAt(text, end);
    if ((c.char_class & kNumber) == 0) break;
    end += c.num_bytes;
  }
  return end;
}

bool IsSymbol(Char c) { return (c.char_class & (kSpace | kLetter | kNumber)) == 0; }

//  ?[^\s\p{L}\p{N}]+[\r\n]* (with `slash`, [\r\n/]*) where the symbols start at `start`.
size_t SymbolsEnd(std::string_view text, size_t start, bool slash) {
  size_t end = RunEnd<false>(text, start, kSpace | kLetter | kNumber);
  while (end < text.size() && (text[end] == '\r' || text[end] == '\n' || (slash && text[end] == '/'))) ++end;
  return end;
}

template <int kMaxDigits>
size_t ScanCl100k(std::string_view text, size_t begin) {
  if (text[begin] == '\'') {
    const size_t end = ContractionEnd<true>(text, begin);
    if (end > begin) return end;
  }
  const Char first = CharAt(text, begin);
  const size_t second = begin + first.num_bytes;
  if (first.char_class & kLetter) return RunEnd<true>(text, second, kLetter);
  if (first.char_class & kNumber) return DigitsEnd(text, begin, kMaxDigits);
  if ((first.char_class & kNewline) == 0 && second < text.size()) {
    const Char next = CharAt(text, second);
    if (next.char_class & kLetter) return RunEnd<true>(text, second + next.num_bytes, kLetter);
    if (text[begin] == ' ' && IsSymbol(next)) return SymbolsEnd(text, second, false);
  }
  if (IsSymbol(first)) return SymbolsEnd(text, begin, false);
  return SpaceOrNewlineEnd(text, begin);
}

// [upperish]*[lowerish]+ from `begin`, greedy with the regular expression's backtracking; `begin` when no match.
size_t CasedWordEnd(std::string_view text, size_t begin) {
  size_t end = begin;
  size_t after_both = begin;  // end of the last character of the upperish run that is lowerish too
  while (end < text.size()) {
    const Char c = CharAt(text, end);
    if ((c.char_class & kUpperish) == 0) break;
    end += c.num_bytes;
    if (c.char_class & kLowerish) after_both = end;
  }
  const size_t lower_end = RunEnd<true>(text, end, kLowerish);
  return lower_end > end ? lower_end : after_both;
}

// [upperish]+[lowerish]* from `begin`; `begin` when no match.
size_t UpperWordEnd(std::string_view text, size_t begin) {
  const size_t end = RunEnd<true>(text, begin, kUpperish);
  return end == begin ? begin : RunEnd<true>(text, end, kLowerish);
}

template <bool kContractions, int kMaxDigits>
size_t ScanO200k(std::string_view text, size_t begin) {
  const Char first = CharAt(text, begin);
  const size_t second = begin + first.num_bytes;
  const bool has_prefix = (first.char_class & (kNewline | kLetter | kNumber)) == 0;
  // The four ways into a word, in the order in which the expression tries them.
  size_t end = begin;
  if (has_prefix && CasedWordEnd(text, second) > second) {
    end = CasedWordEnd(text, second);
  } else if (CasedWordEnd(text, begin) > begin) {
    end = CasedWordEnd(text, begin);
  } else if (has_prefix && UpperWordEnd(text, second) > second) {
    end = UpperWordEnd(text, second);
  } else {
    end = UpperWordEnd(text, begin);
  }
  if (end > begin) return kContractions ? ContractionEnd<true>(text, end) : end;
  if (first.char_class & kNumber) return DigitsEnd(text, begin, kMaxDigits);
  if (text[begin] == ' ' && second < text.size() && IsSymbol(CharAt(text, second))) {
    return SymbolsEnd(text, second, true);
  }
  if (IsSymbol(first)) return SymbolsEnd(text, begin, true);
  return SpaceOrNewlineEnd(text, begin);
}

}  // namespace

std::optional<ScannerKind> RecognizePattern(std::string_view pattern) {
  for (const ScannerKind kind :
       {ScannerKind::kGpt2, ScannerKind::kLlama3, ScannerKind::kQwen2, ScannerKind::kO200k, ScannerKind::kTekken}) {
    if (pattern == PatternOf(kind)) return kind;
  }
  return std::nullopt;
}

std::string_view PatternOf(ScannerKind kind) {
  switch (kind) {
    case ScannerKind::kGpt2:
      return kGpt2Pattern;
    case ScannerKind::kLlama3:
      return kLlama3Pattern;
    case ScannerKind::kQwen2:
      return kQwen2Pattern;
    case ScannerKind::kO200k:
      return kO200kPattern;
    case ScannerKind::kTekken:
      return kTekkenPattern;
  }
  return {};
}

size_t ScanPiece(ScannerKind kind, std::string_view text, size_t begin) {
  switch (kind) {
    case ScannerKind::kGpt2:
      return ScanGpt2(text, begin);
    case ScannerKind::kLlama3:
      return ScanCl100k<3>(text, begin);
    case ScannerKind::kQwen2:
      return ScanCl100k<1>(text, begin);
    case ScannerKind::kO200k:
      return ScanO200k<true, 3>(text, begin);
    case ScannerKind::kTekken:
      return ScanO200k<false, 1>(text, begin);
  }
  return text.size();
}

}  // namespace millrace
