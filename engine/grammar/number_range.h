// SPDX-License-Identifier: Apache-2.0
#pragma once
// Decimal numbers within bounds, as grammar edges.
#include <cstdint>

#include "engine/grammar/grammar.h"

namespace millrace {

// No number has more digits before the point: within it every integer is exact as a 64-bit one.
inline constexpr int64_t kMaxGrammarInteger = 999'999'999'999'999'999;

enum class NumberKind : uint8_t { kInteger, kReal };

// Numbers in [low, high], without exponent; a real has at most 17 digits behind the point. Never "-0".
// REQUIRES: -kMaxGrammarInteger <= low <= high <= kMaxGrammarInteger.
struct NumberRange {
  NumberKind kind = NumberKind::kInteger;
  int64_t low = -kMaxGrammarInteger;
  int64_t high = kMaxGrammarInteger;
};
void EmitNumber(GrammarBuilder& builder, int32_t from, const NumberRange& range, int32_t to);
// Any number JSON has, with at most 18 digits before the point, 18 behind it and an exponent of two.
void EmitAnyNumber(GrammarBuilder& builder, int32_t from, int32_t to);

}  // namespace millrace
