// SPDX-License-Identifier: Apache-2.0
// PrecompiledCharsmap: SentencePiece's normalisation table (a Darts-clone double-array trie and the strings its leaves
// point at), as in tokenizer.json's "Precompiled" normalizer. Constant after construction, any thread.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tracked_text.h"

namespace millrace {

class PrecompiledCharsmap {
 public:
  // `base64` is the field precompiled_charsmap. InvalidArgument when it is not base64 or its sizes lie.
  static absl::StatusOr<PrecompiledCharsmap> Parse(std::string_view base64);

  // Replaces each grapheme cluster shorter than six bytes, or else each character, by its entry where there is one.
  void Apply(TrackedText& text) const;

 private:
  // The string for the shortest entry that `text` begins with.
  std::optional<std::string_view> Find(std::string_view text) const;
  void ApplyToCluster(const TrackedText& text, size_t begin, size_t end, TrackedWriter& writer) const;

  std::vector<uint32_t> trie_;
  std::string strings_;  // each ends with a zero byte
};

}  // namespace millrace
