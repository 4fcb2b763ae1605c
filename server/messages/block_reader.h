// SPDX-License-Identifier: Apache-2.0
#pragma once
// Anthropic's messages and their content blocks to the messages of a conversation. Stack object, one thread. Internal
// to server/messages.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/conversation.h"
#include "server/wire/json_fields.h"

namespace millrace {

class BlockReader {
 public:
  // Appends to `messages`. `ordered`: the list once more, the members of its objects in the client's order. Both
  // outlive it.
  BlockReader(std::vector<ChatMessage>& messages, const TemplateValue& ordered)
      : messages_(messages), ordered_(ordered) {}

  // The list's message `index`; errors are left in `fields`, which are that message's.
  void Add(JsonFields& fields, size_t index);

 private:
  void AddBlock(JsonFields& block, const std::string& type);
  void AddToolUse(JsonFields& block);
  void AddToolResult(JsonFields& block);
  void AppendText(std::string_view text);
  std::string ArgumentsOf(JsonFields& block) const;

  std::vector<ChatMessage>& messages_;
  const TemplateValue& ordered_;
  // Of the message that is being read.
  std::string role_;
  size_t message_ = 0;
  size_t block_ = 0;
  bool is_open_ = false;  // the last of messages_ is of it, and takes more
};

// The text of a string or of a list of text blocks, which `separator` joins; null and absent are empty.
std::string ReadBlocksText(JsonFields& fields, const char* name, std::string_view separator);

}  // namespace millrace
