// SPDX-License-Identifier: Apache-2.0
#include "engine/grammar/number_range.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

void EmitDigit(GrammarBuilder& builder, int32_t from, std::pair<char, char> digits, int32_t to) {
  builder.Symbols(from, {digits.first, digits.second}, to);
}

// `least` to `most` digits.
void EmitDigits(GrammarBuilder& builder, int32_t from, std::pair<int, int> count, int32_t to) {
  for (int i = 0; i < count.second; ++i) {
    if (i >= count.first) builder.Empty(from, to);
    const int32_t next = builder.NewState();
    EmitDigit(builder, from, {'0', '9'}, next);
    from = next;
  }
  builder.Empty(from, to);
}

// Digit strings of one length, from `low` to `high`.
void EmitBetween(GrammarBuilder& builder, int32_t from, std::pair<std::string_view, std::string_view> bounds,
                 int32_t to) {
  const auto [low, high] = bounds;
  if (low.empty()) return builder.Empty(from, to);
  const int count = static_cast<int>(low.size());
  const auto is_all = [](std::string_view text, char digit) {
    return text.find_first_not_of(digit) == std::string_view::npos;
  };
  if (is_all(low, '0') && is_all(high, '9')) return EmitDigits(builder, from, {count, count}, to);
  const auto branch = [&](std::pair<char, char> digits, std::pair<std::string_view, std::string_view> rest) {
    const int32_t next = builder.NewState();
    EmitDigit(builder, from, digits, next);
    EmitBetween(builder, next, rest, to);
  };
  if (low[0] == high[0]) return branch({low[0], low[0]}, {low.substr(1), high.substr(1)});
  const std::string zeros(low.size() - 1, '0'), nines(low.size() - 1, '9');
  branch({low[0], low[0]}, {low.substr(1), nines});
  const char above = static_cast<char>(low[0] + 1), below = static_cast<char>(high[0] - 1);
  if (above <= below) branch({above, below}, {zeros, nines});
  branch({high[0], high[0]}, {zeros, high.substr(1)});
}

// Not negative, without leading zeros.
void EmitMagnitudes(GrammarBuilder& builder, int32_t from, std::pair<int64_t, int64_t> range, int32_t to) {
  int64_t least = 0, power = 10;
  for (int digits = 1; digits <= 18; ++digits) {
    const int64_t low = std::max(range.first, least), high = std::min(range.second, power - 1);
    if (low <= high) EmitBetween(builder, from, {absl::StrCat(low), absl::StrCat(high)}, to);
    least = power;
    if (digits < 18) power *= 10;  // ten times more would not fit
  }
}

void EmitUnsigned(GrammarBuilder& builder, int32_t from, const NumberRange& range, int32_t to) {
  if (range.kind == NumberKind::kInteger) return EmitMagnitudes(builder, from, {range.low, range.high}, to);
  const int32_t last = builder.NewState();
  EmitMagnitudes(builder, from, {range.high, range.high}, last);
  builder.Empty(last, to);
  builder.LiteralTo(last, ".0", to);
  if (range.low == range.high) return;
  const int32_t whole = builder.NewState();
  EmitMagnitudes(builder, from, {range.low, range.high - 1}, whole);
  builder.Empty(whole, to);
  EmitDigits(builder, builder.Literal(whole, "."), {1, 17}, to);
}

}  // namespace

void EmitNumber(GrammarBuilder& builder, int32_t from, const NumberRange& range, int32_t to) {
  if (range.high >= 0) EmitUnsigned(builder, from, {range.kind, std::max<int64_t>(range.low, 0), range.high}, to);
  const bool is_real = range.kind == NumberKind::kReal;
  if (range.low >= 0) return;
  // -0.5 is a real in [-1, 0]; -0 is left out of the integers.
  const int64_t least = range.high >= 0 ? (is_real ? 0 : 1) : -range.high;
  EmitUnsigned(builder, builder.Literal(from, "-"), {range.kind, least, -range.low}, to);
}

void EmitAnyNumber(GrammarBuilder& builder, int32_t from, int32_t to) {
  const int32_t sign = builder.NewState();
  builder.Empty(from, sign);
  builder.LiteralTo(from, "-", sign);
  const int32_t whole = builder.NewState();
  builder.LiteralTo(sign, "0", whole);
  const int32_t first = builder.NewState();
  EmitDigit(builder, sign, {'1', '9'}, first);
  EmitDigits(builder, first, {0, 17}, whole);
  const int32_t fraction = builder.NewState();
  builder.Empty(whole, fraction);
  EmitDigits(builder, builder.Literal(whole, "."), {1, 18}, fraction);
  builder.Empty(fraction, to);
  const int32_t exponent = builder.NewState(), digits = builder.NewState();
  for (const char e : {'e', 'E'}) builder.Byte(fraction, e, exponent);
  for (const char sign_of_exponent : {'+', '-'}) builder.Byte(exponent, sign_of_exponent, digits);
  builder.Empty(exponent, digits);
  EmitDigits(builder, digits, {1, 2}, to);
}

}  // namespace millrace
