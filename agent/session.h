// SPDX-License-Identifier: Apache-2.0
#pragma once
// The exact tokens of a conversation so far: what was asked and what the model drew. A follow-up appends the tokens of
// what was added, so that nothing of the history is tokenised, or computed, again. Of one run, one thread.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/text/chat_template.h"
#include "engine/text/conversation.h"
#include "engine/text/tokenizer.h"

namespace millrace {

class Session {
 public:
  // `chat_template` may be null: then nothing is ever continued. Both outlive the session.
  Session(const ChatTemplate* chat_template, const Tokenizer& tokenizer)
      : chat_template_(chat_template), tokenizer_(tokenizer) {}

  // What was asked with `num_messages` messages, and the tokens drawn, the one that ended them included. The answer is
  // the next message of the conversation.
  void Keep(std::vector<int32_t> prompt, std::span<const int32_t> output, size_t num_messages);
  // Forgets it: what was drawn is not what the conversation will say.
  void Drop() { tokens_.clear(); }

  // The prompt of a conversation that has grown behind the kept answer. Nothing where it has not, or where the template
  // writes what is new in a way that depends on what went before: then it has to be rendered as a whole.
  std::optional<std::vector<int32_t>> Continue(const Conversation& conversation) const;

 private:
  std::optional<TemplateString> Closing(const Conversation& conversation) const;
  std::optional<TemplateString> Added(const Conversation& conversation, const TemplateString& closing) const;
  std::optional<TemplateString> AddedBehindPlaceholder(const Conversation& conversation) const;

  const ChatTemplate* const chat_template_;
  const Tokenizer& tokenizer_;
  std::vector<int32_t> tokens_;  // empty: nothing is kept
  size_t num_messages_ = 0;
};

}  // namespace millrace
