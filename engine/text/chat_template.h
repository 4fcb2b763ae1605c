// SPDX-License-Identifier: Apache-2.0
#pragma once
// ChatTemplate: a conversation to the prompt a model was trained on, through the model's own Jinja template. Built
// once per model, immutable, safe from any thread.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/conversation.h"
#include "engine/text/jinja_template.h"
#include "engine/text/template_string.h"
#include "engine/text/template_value.h"
#include "engine/text/tokenizer.h"

namespace millrace {

// The template texts of a model and the names of its special tokens.
struct ChatTemplateSource {
  std::string text;
  std::string tool_use_text;  // used instead where tools are given; empty: none
  // "bos_token" to "<s>" and so on: variables of the template.
  std::vector<std::pair<std::string, std::string>> special_tokens;
};

struct RenderedPrompt {
  TemplateString text;
  // Views into `text`; kTemplate where the template's author (or a special token) wrote it, else kUser.
  std::vector<TextSegment> segments() const;
};

class ChatTemplate {
 public:
  // Parses and tries the template out on small conversations, to learn in which form it takes contents and tool
  // arguments. InvalidArgument with the line: it does not parse.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Parse(ChatTemplateSource source, const JinjaLimits& limits = {});
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Parse(std::string_view text, std::string_view bos_token,
                                                             std::string_view eos_token);

  // InvalidArgument: the template refuses the conversation (its own words and the line), a limit is reached, or the
  // message to continue cannot be found in the prompt.
  absl::StatusOr<RenderedPrompt> Render(const Conversation& conversation) const;
  // Render, then token ids; control tokens come from the template alone.
  absl::StatusOr<std::vector<int32_t>> Encode(const Conversation& conversation, const Tokenizer& tokenizer) const;

  const std::string& text() const { return source_.text; }
  // The text that is used where tools are given.
  const std::string& text_with_tools() const {
    return source_.tool_use_text.empty() ? source_.text : source_.tool_use_text;
  }
  bool takes_tools() const { return takes_tools_; }  // offered tools show in the prompt

 private:
  // What the template was seen to understand.
  struct Forms {
    bool takes_text = true;            // contents as strings
    bool takes_parts = false;          // contents as lists of {"type": "text", "text": ...}
    bool takes_argument_dicts = true;  // tool arguments as dicts; else as JSON text
  };

  ChatTemplate(ChatTemplateSource source, JinjaTemplate plain, std::optional<JinjaTemplate> tool_use);
  void Probe();
  absl::StatusOr<TemplateString> RenderAs(const Conversation& conversation, const Forms& forms) const;
  absl::StatusOr<TemplateValue> Variables(const Conversation& conversation, const Forms& forms) const;
  static TemplateValue MessageValue(const ChatMessage& message, const Forms& forms);
  static TemplateValue ContentValue(const ChatContent& content, const Forms& forms);
  static TemplateValue ToolCallValue(const ChatToolCall& call, const Forms& forms);

  const ChatTemplateSource source_;
  const JinjaTemplate plain_;
  const std::optional<JinjaTemplate> tool_use_;
  Forms forms_;  // constant after construction, as is the next
  bool takes_tools_ = false;
};

// The template of a model directory: chat_template.jinja, chat_template.json or tokenizer_config.json, with the
// special tokens of tokenizer_config.json or special_tokens_map.json. `given` replaces the text: a path to a file, or
// the template itself; empty: the model's own.
// NotFound: the model has none. InvalidArgument: a file or the template does not parse.
absl::StatusOr<std::unique_ptr<ChatTemplate>> LoadChatTemplate(const std::string& model_dir,
                                                               const std::string& given = "");
// The texts and tokens alone; text is empty when the model has none.
absl::StatusOr<ChatTemplateSource> ReadChatTemplateSource(const std::string& model_dir);

}  // namespace millrace
