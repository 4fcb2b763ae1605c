// SPDX-License-Identifier: Apache-2.0
// AddedTokens: finds added and special tokens in text before anything else looks at it. Constant after construction,
// any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/byte_trie.h"

namespace millrace {

struct AddedToken {
  std::string content;
  int32_t id = -1;
  bool special = false;
  bool lstrip = false;       // takes the white space in front of it too
  bool rstrip = false;       // and behind it
  bool single_word = false;  // only where no word character touches it
  bool normalized = false;   // looked for in the normalised text instead of the raw one
};

// A control token may not come from user text: special, or with any visible character. Runs of white space that some
// models add as tokens are ordinary text.
bool IsControlToken(const AddedToken& token);

class AddedTokenFinder {
 public:
  // `patterns[i]` is what `tokens[i]` looks like in the text searched.
  AddedTokenFinder(const std::vector<AddedToken>& tokens, const std::vector<std::string>& patterns);
  AddedTokenFinder() = default;

  bool empty() const { return tokens_.empty(); }

  struct Part {
    size_t begin;
    size_t end;
    int32_t id;  // -1: text
  };

  // Cuts `text` into tokens and the text between, leftmost first and the longest at each place. `from_user` has one
  // flag for each byte, or is empty when `all_from_user` holds for the whole; control tokens are not seen where any
  // byte is a user's.
  void Split(std::string_view text, const std::vector<uint8_t>& from_user, bool all_from_user,
             std::vector<Part>& parts) const;

 private:
  struct Entry {
    int32_t id;
    bool lstrip;
    bool rstrip;
    bool single_word;
    bool is_control;
  };

  std::vector<Entry> tokens_;
  ByteTrie trie_;  // values index tokens_
};

}  // namespace millrace
