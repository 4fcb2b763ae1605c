// SPDX-License-Identifier: Apache-2.0
#pragma once
// TokenVocabulary: a tokenizer's tokens as a trie of their bytes in the order of a walk, and its control tokens by
// name. Built once with the model, constant afterwards, any thread.
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/tokenizer.h"

namespace millrace {

class TokenVocabulary {
 public:
  // A node of the trie; its children are those from the next node to `behind`.
  struct Node {
    uint8_t byte = 0;
    uint16_t depth = 0;                        // 0: the first byte of its tokens
    uint32_t behind = 0;                       // the first node outside its subtree
    uint32_t first_token = 0, num_tokens = 0;  // of tokens(): those that end here
  };

  // Of the ids below `num_ids`, the width of a row of logits. About 0.1 s for 150,000 tokens.
  TokenVocabulary(const Tokenizer& tokenizer, int32_t num_ids);

  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<int32_t>& tokens() const { return tokens_; }
  const std::vector<int32_t>& controls() const { return controls_; }
  bool is_control(int32_t id) const { return is_control_[static_cast<size_t>(id)] != 0; }
  std::string_view bytes(int32_t id) const { return tokenizer_.TokenBytes(id); }
  std::optional<int32_t> FindControl(std::string_view name) const;
  int32_t num_ids() const { return num_ids_; }
  size_t num_mask_words() const { return (static_cast<size_t>(num_ids_) + 31) / 32; }

 private:
  const Tokenizer& tokenizer_;
  const int32_t num_ids_;
  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> controls_;
  std::vector<uint8_t> is_control_;  // [num_ids]
};

}  // namespace millrace
