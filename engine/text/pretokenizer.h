// SPDX-License-Identifier: Apache-2.0
// Pre-tokenizers: from normalised text to the pieces that the model sees one at a time. Steps are plain data, run in
// order; constant after construction, any thread. The pieces of one call belong to that call.
#pragma once

#include <absl/status/status.h>

#include <deque>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/text/split_pattern.h"

namespace millrace {

struct Piece {
  std::string_view text;  // not empty
  bool at_start;          // begins where the whole input begins
};

// Pieces and the texts that steps had to write anew; views into `storage` stay valid as it grows.
struct PieceList {
  std::vector<Piece> pieces;
  std::deque<std::string> storage;

  std::string_view Keep(std::string text) { return storage.emplace_back(std::move(text)); }
};

// GPT-2's pattern and byte alphabet. `to_alphabet` is false when the model reads raw bytes itself.
struct ByteLevelStep {
  bool add_prefix_space = true;
  bool use_regex = true;
  bool to_alphabet = true;
};

struct SplitStep {
  SplitPattern pattern;
  SplitBehavior behavior;
  bool invert;
};

enum class PrependScheme : uint8_t { kAlways, kFirst, kNever };

// Space becomes `replacement`, which also goes in front of the text; pieces begin at it when `split`.
struct MetaspaceStep {
  std::string replacement = "\xE2\x96\x81";  // U+2581
  PrependScheme prepend_scheme = PrependScheme::kAlways;
  bool split = true;
};

// Splits at single characters of a class.
struct CharClassStep {
  bool (*is_member)(char32_t);
  SplitBehavior behavior;
};

// \w+|[^\w\s]+
struct WordsStep {};

using PreTokenizerStep = std::variant<ByteLevelStep, SplitStep, MetaspaceStep, CharClassStep, WordsStep>;

// Runs all steps on the list. Errors as Regex::FindAll.
absl::Status PreTokenize(const std::vector<PreTokenizerStep>& steps, PieceList& list);

}  // namespace millrace
