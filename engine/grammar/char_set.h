// SPDX-License-Identifier: Apache-2.0
#pragma once
// Sets of Unicode characters and how one of them is written within a JSON string: as it is in UTF-8, or escaped where
// JSON demands it. Pure functions.
#include <cstdint>
#include <utility>
#include <vector>

#include "engine/grammar/grammar.h"

namespace millrace {

// Inclusive ranges of code points, sorted and apart; surrogates are never members.
class CharSet {
 public:
  CharSet() = default;
  explicit CharSet(std::vector<std::pair<uint32_t, uint32_t>> ranges);
  static CharSet All();
  CharSet Complement() const;
  void AddAll(const CharSet& other);
  bool Has(uint32_t code_point) const;
  const std::vector<std::pair<uint32_t, uint32_t>>& ranges() const { return ranges_; }

 private:
  void Normalise();
  std::vector<std::pair<uint32_t, uint32_t>> ranges_;
};

// One character of the set, as it stands between the quotes of a JSON string.
void EmitJsonChar(GrammarBuilder& builder, int32_t from, const CharSet& set, int32_t to);
// Any character, in any way that JSON has of writing it; a surrogate only in a pair.
void EmitAnyJsonChar(GrammarBuilder& builder, int32_t from, int32_t to);

}  // namespace millrace
