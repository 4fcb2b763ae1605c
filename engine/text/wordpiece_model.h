// SPDX-License-Identifier: Apache-2.0
// WordPieceModel: the longest token that a word begins with, again and again (Devlin et al., "BERT", 2019). Constant
// after construction, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/bpe_model.h"

namespace millrace {

class WordPieceModel {
 public:
  struct Options {
    std::optional<int32_t> unk_id;
    std::string continuing_prefix = "##";
    size_t max_word_chars = 100;  // a longer word is unknown
  };

  WordPieceModel(Options options, const std::vector<ModelToken>& tokens);

  // Appends the ids of one word; the unknown token when any part of it has no token.
  void Encode(std::string_view word, std::vector<int32_t>& ids) const;

 private:
  Options options_;
  StringIndex tokens_;
};

}  // namespace millrace
