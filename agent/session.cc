// SPDX-License-Identifier: Apache-2.0
#include "agent/session.h"

#include <string>
#include <string_view>
#include <utility>

namespace millrace {
namespace {

// Stands for an answer in a render; nothing that a template would trim, escape or write itself.
constexpr std::string_view kPlaceholder = "Answer7d1f5c02b9e64a38";

// What follows the placeholder, if it is there once.
std::optional<TemplateString> BehindPlaceholder(const absl::StatusOr<RenderedPrompt>& prompt) {
  if (!prompt.ok()) return std::nullopt;
  const std::string_view text = prompt->text.view();
  const size_t at = text.find(kPlaceholder);
  if (at == text.npos || text.find(kPlaceholder, at + 1) != text.npos) return std::nullopt;
  return prompt->text.Slice(at + kPlaceholder.size(), text.size());
}

}  // namespace

void Session::Keep(std::vector<int32_t> prompt, std::span<const int32_t> output, size_t num_messages) {
  tokens_ = std::move(prompt);
  tokens_.insert(tokens_.end(), output.begin(), output.end());
  num_messages_ = num_messages;
}

// What the template writes behind any answer.
std::optional<TemplateString> Session::Closing(const Conversation& conversation) const {
  Conversation small{
      .messages = {{.role = "user", .content = "a"}, {.role = "assistant", .content = std::string(kPlaceholder)}},
      .tools = conversation.tools,
      .template_variables = conversation.template_variables,
      .adds_generation_prompt = false,
      .now = conversation.now};
  return BehindPlaceholder(chat_template_->Render(small));
}

// What comes behind the answer: the render of all begins with that of all up to the answer.
std::optional<TemplateString> Session::Added(const Conversation& conversation, const TemplateString& closing) const {
  Conversation before = conversation;
  before.messages.resize(num_messages_ + 1);
  before.adds_generation_prompt = false;
  const auto until_answer = chat_template_->Render(before);
  const auto whole = chat_template_->Render(conversation);
  if (!until_answer.ok() || !whole.ok()) return std::nullopt;
  const std::string_view begin = until_answer->text.view();
  if (!begin.ends_with(closing.view()) || !whole->text.view().starts_with(begin)) return std::nullopt;
  TemplateStringBuilder added;
  added.Append(closing);
  added.AppendSlice(whole->text, begin.size(), whole->text.size_bytes());
  return added.Build();
}

// The same for templates that write a last answer otherwise: the whole, with a placeholder in the answer's place.
std::optional<TemplateString> Session::AddedBehindPlaceholder(const Conversation& conversation) const {
  Conversation replaced = conversation;
  replaced.messages[num_messages_] = {.role = "assistant", .content = std::string(kPlaceholder)};
  return BehindPlaceholder(chat_template_->Render(replaced));
}

std::optional<std::vector<int32_t>> Session::Continue(const Conversation& conversation) const {
  if (tokens_.empty() || chat_template_ == nullptr) return std::nullopt;
  if (conversation.messages.size() < num_messages_ + 2) return std::nullopt;
  if (conversation.messages[num_messages_].role != "assistant") return std::nullopt;
  const std::optional<TemplateString> closing = Closing(conversation);
  if (!closing.has_value()) return std::nullopt;
  std::optional<TemplateString> added = Added(conversation, *closing);
  if (!added.has_value()) added = AddedBehindPlaceholder(conversation);
  if (!added.has_value()) return std::nullopt;
  const RenderedPrompt rendered{.text = *std::move(added)};
  const auto encoded = tokenizer_.EncodeSegments(rendered.segments());
  if (!encoded.ok() || encoded->empty()) return std::nullopt;
  // The token that ended the answer is what the template closes it with, or another that would stand there twice.
  std::vector<int32_t> tokens = tokens_;
  if (tokens.back() == encoded->front() || tokenizer_.IsSpecial(tokens.back())) tokens.pop_back();
  tokens.insert(tokens.end(), encoded->begin(), encoded->end());
  return tokens;
}

}  // namespace millrace
