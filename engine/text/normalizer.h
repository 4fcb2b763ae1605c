// SPDX-License-Identifier: Apache-2.0
// Normalizers: what happens to text before it is split into pieces. Steps are plain data, run in order; constant after
// construction, any thread.
#pragma once

#include <absl/status/status.h>

#include <string>
#include <variant>
#include <vector>

#include "engine/text/precompiled_charsmap.h"
#include "engine/text/split_pattern.h"
#include "engine/text/tracked_text.h"

namespace millrace {

enum class UnicodeForm : uint8_t { kNfc, kNfd, kNfkc, kNfkd };

struct UnicodeFormStep {
  UnicodeForm form;
};

struct LowercaseStep {};  // character by character, without context

struct ReplaceStep {
  SplitPattern pattern;
  std::string content;
};

struct PrependStep {
  std::string prefix;  // in front of a text that is not empty
};

struct StripStep {  // White_Space at the ends
  bool left;
  bool right;
};

struct StripAccentsStep {  // drops the characters of category M; usually after NFD
  bool only_nonspacing = false;
};

struct CleanBertStep {  // drops control characters, makes any white space a space
};

struct SpaceChineseStep {  // spaces around CJK ideographs
};

struct CleanNmtStep {  // SentencePiece's nmt rules for control characters and spaces
};

struct ByteAlphabetStep {};

using NormalizerStep =
    std::variant<UnicodeFormStep, LowercaseStep, ReplaceStep, PrependStep, StripStep, StripAccentsStep, CleanBertStep,
                 SpaceChineseStep, CleanNmtStep, PrecompiledCharsmap, ByteAlphabetStep>;

// Runs all steps on the text. REQUIRES: valid UTF-8, which the result is too. Errors as Regex::FindAll, and
// ResourceExhausted when the text grows beyond 64 times its size and a megabyte.
absl::Status Normalize(const std::vector<NormalizerStep>& steps, TrackedText& text);

}  // namespace millrace
