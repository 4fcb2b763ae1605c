// SPDX-License-Identifier: Apache-2.0
#include "engine/grammar/char_set.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "engine/text/utf8.h"

namespace millrace {
namespace {

constexpr uint32_t kLastCodePoint = 0x10FFFF;

// Characters whose UTF-8 differs in whole ranges of bytes only: [first, last] of the same number of bytes, split until
// each byte runs through a range of its own.
void EmitUtf8Range(GrammarBuilder& builder, int32_t from, std::pair<uint32_t, uint32_t> range, int32_t to) {
  const auto [first, last] = range;
  for (const uint32_t limit : {0x7Fu, 0x7FFu, 0xFFFFu}) {
    if (first <= limit && limit < last) {
      EmitUtf8Range(builder, from, {first, limit}, to);
      EmitUtf8Range(builder, from, {limit + 1, last}, to);
      return;
    }
  }
  std::string low, high;
  AppendUtf8(first, low);
  AppendUtf8(last, high);
  for (size_t tail = 1; tail < low.size(); ++tail) {  // the bytes behind must run through all of 80..BF
    const uint32_t mask = (1u << (6 * tail)) - 1;
    if ((first & ~mask) == (last & ~mask)) continue;
    if ((first & mask) != 0) {
      EmitUtf8Range(builder, from, {first, first | mask}, to);
      EmitUtf8Range(builder, from, {(first | mask) + 1, last}, to);
      return;
    }
    if ((last & mask) != mask) {
      EmitUtf8Range(builder, from, {first, (last & ~mask) - 1}, to);
      EmitUtf8Range(builder, from, {last & ~mask, last}, to);
      return;
    }
  }
  for (size_t i = 0; i < low.size(); ++i) {
    const int32_t next = i + 1 == low.size() ? to : builder.NewState();
    builder.Symbols(from, {static_cast<uint8_t>(low[i]), static_cast<uint8_t>(high[i])}, next);
    from = next;
  }
}

void EmitHexDigit(GrammarBuilder& builder, int32_t from, std::pair<int, int> digits, int32_t to) {
  const auto [low, high] = digits;
  if (low <= 9) builder.Symbols(from, {'0' + low, '0' + std::min(high, 9)}, to);
  if (high < 10) return;
  for (const char a : {'a', 'A'}) builder.Symbols(from, {a + std::max(low, 10) - 10, a + high - 10}, to);
}

// The hexadecimal digits of a code unit whose first two lie in `first` and `second`.
int32_t EmitCodeUnit(GrammarBuilder& builder, int32_t from, std::pair<int, int> first, std::pair<int, int> second) {
  int32_t states[4];
  const std::pair<int, int> digits[4] = {first, second, {0, 15}, {0, 15}};
  for (int i = 0; i < 4; ++i) {
    states[i] = builder.NewState();
    EmitHexDigit(builder, from, digits[i], states[i]);
    from = states[i];
  }
  return from;
}

}  // namespace

CharSet::CharSet(std::vector<std::pair<uint32_t, uint32_t>> ranges) : ranges_(std::move(ranges)) { Normalise(); }

CharSet CharSet::All() { return CharSet({{0, kLastCodePoint}}); }

void CharSet::Normalise() {
  std::sort(ranges_.begin(), ranges_.end());
  std::vector<std::pair<uint32_t, uint32_t>> merged;
  for (const auto& [low, high] : ranges_) {
    if (!merged.empty() && low <= merged.back().second + 1) {
      merged.back().second = std::max(merged.back().second, high);
    } else {
      merged.emplace_back(low, high);
    }
  }
  ranges_.clear();
  for (const auto& [low, high] : merged) {
    if (low < 0xD800) ranges_.emplace_back(low, std::min(high, 0xD7FFu));
    if (high > 0xDFFF) ranges_.emplace_back(std::max(low, 0xE000u), high);
  }
}

CharSet CharSet::Complement() const {
  std::vector<std::pair<uint32_t, uint32_t>> ranges;
  uint32_t next = 0;
  for (const auto& [low, high] : ranges_) {
    if (low > next) ranges.emplace_back(next, low - 1);
    next = high + 1;
  }
  if (next <= kLastCodePoint) ranges.emplace_back(next, kLastCodePoint);
  return CharSet(std::move(ranges));
}

void CharSet::AddAll(const CharSet& other) {
  ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
  Normalise();
}

bool CharSet::Has(uint32_t code_point) const {
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [&](const auto& range) { return range.first <= code_point && code_point <= range.second; });
}

void EmitJsonChar(GrammarBuilder& builder, int32_t from, const CharSet& set, int32_t to) {
  CharSet unescaped = set.Complement();
  unescaped.AddAll(CharSet({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}));
  unescaped = unescaped.Complement();
  for (const auto& range : unescaped.ranges()) EmitUtf8Range(builder, from, range, to);
  constexpr std::string_view kHex = "0123456789abcdef";
  constexpr std::string_view kNamed = "\b\f\n\r\t\"\\", kNames = "bfnrt\"\\";
  for (uint32_t c = 0; c <= '\\'; ++c) {
    const size_t named = kNamed.find(static_cast<char>(c));
    if (!set.Has(c) || (c > 0x1F && named == std::string_view::npos)) continue;
    std::string escaped = "\\";
    if (named != std::string_view::npos) {
      escaped += kNames[named];
    } else {
      escaped += std::string("u00") + kHex[c >> 4] + kHex[c & 15];
    }
    builder.LiteralTo(from, escaped, to);
  }
}

void EmitAnyJsonChar(GrammarBuilder& builder, int32_t from, int32_t to) {
  const CharSet plain = CharSet({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}).Complement();
  for (const auto& range : plain.ranges()) EmitUtf8Range(builder, from, range, to);
  const int32_t escape = builder.Literal(from, "\\");
  for (const char name : std::string_view("\"\\/bfnrt")) builder.Byte(escape, name, to);
  const int32_t unit = builder.Literal(escape, "u");
  builder.Empty(EmitCodeUnit(builder, unit, {0, 12}, {0, 15}), to);
  builder.Empty(EmitCodeUnit(builder, unit, {13, 13}, {0, 7}), to);
  builder.Empty(EmitCodeUnit(builder, unit, {14, 15}, {0, 15}), to);
  const int32_t pair = builder.Literal(EmitCodeUnit(builder, unit, {13, 13}, {8, 11}), "\\u");
  builder.Empty(EmitCodeUnit(builder, pair, {13, 13}, {12, 15}), to);
}

}  // namespace millrace
