// SPDX-License-Identifier: Apache-2.0
#include "engine/text/chat_template.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "engine/text/jinja_text.h"
#include "engine/text/template_json.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

// These words are ours as much as the client's: a template may build a control token around them.
TemplateValue RoleValue(const std::string& role) {
  static constexpr std::string_view kRoles[] = {"system", "developer", "user", "assistant", "tool", "function"};
  const bool is_known = std::find(std::begin(kRoles), std::end(kRoles), role) != std::end(kRoles);
  return is_known ? TemplateValue::Trusted(role) : TemplateValue::Text(role);
}

std::string JoinParts(const std::vector<ContentPart>& parts) {
  std::string text;
  for (const ContentPart& part : parts) {
    if (part.type != "text") continue;
    if (!text.empty()) text += '\n';
    text += part.text;
  }
  return text;
}

TemplateValue TextPart(std::string_view text) {
  TemplateValue part = TemplateValue::Dict();
  part.as_dict().Set("type", TemplateValue::Trusted("text"));
  part.as_dict().Set("text", TemplateValue::Text(text));
  return part;
}

bool HasTools(const Conversation& conversation) {
  return conversation.tools.is_list() && !conversation.tools.as_list().items.empty();
}

// The prompt up to the end of its last message's text, without what the template puts behind it.
absl::StatusOr<TemplateString> CutAfterFinalMessage(const TemplateString& prompt, const Conversation& conversation) {
  std::string final_text;
  if (!conversation.messages.empty()) {
    const ChatContent& content = conversation.messages.back().content;
    if (const auto* text = std::get_if<std::string>(&content)) final_text = *text;
    if (const auto* parts = std::get_if<std::vector<ContentPart>>(&content)) final_text = JoinParts(*parts);
  }
  const std::string_view view = final_text;
  const TextRange inner = StripSpace(view);
  const std::string_view core = view.substr(inner.begin, inner.end - inner.begin);
  if (core.empty()) return absl::InvalidArgumentError("continue_final_message: the last message has no text");
  const size_t found = prompt.view().rfind(core);
  if (found == std::string_view::npos) {
    return absl::InvalidArgumentError(
        "continue_final_message: the chat template does not print the last message as it is");
  }
  // Trailing white space stays where the template kept it.
  const std::string_view with_tail = view.substr(inner.begin);
  const bool keeps_tail = prompt.view().substr(found, with_tail.size()) == with_tail;
  return prompt.Slice(0, found + (keeps_tail ? with_tail.size() : core.size()));
}

constexpr std::string_view kNeedle = "Qx7needle";

Conversation ProbeConversation() {
  Conversation conversation;
  conversation.now = absl::UnixEpoch();
  ChatMessage message;
  message.role = "user";
  message.content = std::string(kNeedle);
  conversation.messages.push_back(std::move(message));
  return conversation;
}

TemplateValue ProbeTools() {
  static constexpr std::string_view kTools =
      R"([{"type":"function","function":{"name":"Qx7needle","description":"d","parameters":{"type":"object",)"
      R"("properties":{"a":{"type":"string","description":"d"}},"required":["a"]}}}])";
  absl::StatusOr<TemplateValue> tools = ParseJsonValue(kTools);
  return tools.ok() ? *std::move(tools) : TemplateValue();
}

}  // namespace

std::vector<TextSegment> RenderedPrompt::segments() const {
  std::vector<TextSegment> segments;
  size_t begin = 0;
  for (const TextRun& run : text.runs()) {
    const Trust trust = run.origin == TextOrigin::kTemplate ? Trust::kTemplate : Trust::kUser;
    segments.push_back({text.view().substr(begin, run.end - begin), trust});
    begin = run.end;
  }
  return segments;
}

ChatTemplate::ChatTemplate(ChatTemplateSource source, JinjaTemplate plain, std::optional<JinjaTemplate> tool_use)
    : source_(std::move(source)), plain_(std::move(plain)), tool_use_(std::move(tool_use)) {}

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Parse(ChatTemplateSource source,
                                                                  const JinjaLimits& limits) {
  ASSIGN_OR_RETURN(JinjaTemplate plain, JinjaTemplate::Parse(source.text, limits));
  std::optional<JinjaTemplate> tool_use;
  if (!source.tool_use_text.empty()) {
    ASSIGN_OR_RETURN(tool_use, JinjaTemplate::Parse(source.tool_use_text, limits));
  }
  auto chat_template =
      std::unique_ptr<ChatTemplate>(new ChatTemplate(std::move(source), std::move(plain), std::move(tool_use)));
  chat_template->Probe();
  return chat_template;
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Parse(std::string_view text, std::string_view bos_token,
                                                                  std::string_view eos_token) {
  ChatTemplateSource source;
  source.text = std::string(text);
  source.special_tokens = {{"bos_token", std::string(bos_token)}, {"eos_token", std::string(eos_token)}};
  return Parse(std::move(source));
}

void ChatTemplate::Probe() {
  const auto shows = [this](const Conversation& conversation, const Forms& forms, std::string_view what) {
    const absl::StatusOr<TemplateString> prompt = RenderAs(conversation, forms);
    return prompt.ok() && prompt->view().find(what) != std::string_view::npos;
  };
  const Conversation plain = ProbeConversation();
  Forms text_only, parts_only;
  parts_only.takes_text = false;
  parts_only.takes_parts = true;
  // A template that only prints the list shows its braces too.
  const bool shows_parts =
      shows(plain, parts_only, kNeedle) && !shows(plain, parts_only, "'type'") && !shows(plain, parts_only, "\"type\"");
  forms_.takes_text = shows(plain, text_only, kNeedle) || !shows_parts;
  forms_.takes_parts = shows_parts;

  Conversation with_tools = plain;
  with_tools.messages[0].content = std::string("x");
  with_tools.tools = ProbeTools();
  takes_tools_ = shows(with_tools, forms_, kNeedle);

  Conversation with_call = with_tools;
  ChatMessage call;
  call.role = "assistant";
  call.content = std::string();
  call.tool_calls.push_back({"call00001", "f", R"({"a": "Qx7needle"})"});
  with_call.messages.push_back(std::move(call));
  with_call.tools = TemplateValue();
  with_call.adds_generation_prompt = false;
  Forms as_text = forms_;
  as_text.takes_argument_dicts = false;
  forms_.takes_argument_dicts = shows(with_call, forms_, kNeedle) || !shows(with_call, as_text, kNeedle);
}

TemplateValue ChatTemplate::ContentValue(const ChatContent& content, const Forms& forms) {
  if (const auto* parts = std::get_if<std::vector<ContentPart>>(&content)) {
    if (!forms.takes_parts) return TemplateValue::Text(JoinParts(*parts));
    std::vector<TemplateValue> values;
    for (const ContentPart& part : *parts) {
      TemplateValue value = TextPart(part.text);
      if (part.type != "text") {
        value = TemplateValue::Dict();
        value.as_dict().Set("type", TemplateValue::Text(part.type));
      }
      values.push_back(std::move(value));
    }
    return TemplateValue::List(std::move(values));
  }
  // No content is the empty string: many templates would fail on None.
  const auto* text = std::get_if<std::string>(&content);
  if (forms.takes_text) return TemplateValue::Text(text == nullptr ? std::string_view() : *text);
  std::vector<TemplateValue> values;
  if (text != nullptr) values.push_back(TextPart(*text));
  return TemplateValue::List(std::move(values));
}

TemplateValue ChatTemplate::ToolCallValue(const ChatToolCall& call, const Forms& forms) {
  TemplateValue function = TemplateValue::Dict();
  function.as_dict().Set("name", TemplateValue::Text(call.name));
  TemplateValue arguments = TemplateValue::Text(call.arguments);
  if (forms.takes_argument_dicts) {
    // Arguments that are no JSON stay text; the template says whether it can print them.
    absl::StatusOr<TemplateValue> parsed = ParseJsonValue(call.arguments.empty() ? "{}" : call.arguments);
    if (parsed.ok() && parsed->is_dict()) arguments = *std::move(parsed);
  }
  function.as_dict().Set("arguments", std::move(arguments));
  TemplateValue value = TemplateValue::Dict();
  value.as_dict().Set("id", TemplateValue::Text(call.id));
  value.as_dict().Set("type", TemplateValue::Trusted("function"));
  value.as_dict().Set("function", std::move(function));
  return value;
}

TemplateValue ChatTemplate::MessageValue(const ChatMessage& message, const Forms& forms) {
  TemplateValue value = TemplateValue::Dict();
  TemplateDict& dict = value.as_dict();
  dict.Set("role", RoleValue(message.role));
  dict.Set("content", ContentValue(message.content, forms));
  if (!message.name.empty()) dict.Set("name", TemplateValue::Text(message.name));
  if (!message.tool_call_id.empty()) dict.Set("tool_call_id", TemplateValue::Text(message.tool_call_id));
  if (!message.reasoning_content.empty()) {
    dict.Set("reasoning_content", TemplateValue::Text(message.reasoning_content));
  }
  if (!message.tool_calls.empty()) {
    std::vector<TemplateValue> calls;
    calls.reserve(message.tool_calls.size());
    for (const ChatToolCall& call : message.tool_calls) calls.push_back(ToolCallValue(call, forms));
    dict.Set("tool_calls", TemplateValue::List(std::move(calls)));
  }
  return value;
}

absl::StatusOr<TemplateValue> ChatTemplate::Variables(const Conversation& conversation, const Forms& forms) const {
  TemplateValue variables = TemplateValue::Dict();
  TemplateDict& dict = variables.as_dict();
  if (conversation.template_variables.is_dict()) {
    for (const auto& [name, value] : conversation.template_variables.as_dict().entries()) dict.Set(name, value);
  }
  std::vector<TemplateValue> messages;
  messages.reserve(conversation.messages.size());
  for (const ChatMessage& message : conversation.messages) messages.push_back(MessageValue(message, forms));
  dict.Set("messages", TemplateValue::List(std::move(messages)));
  dict.Set("tools", HasTools(conversation) ? conversation.tools : TemplateValue::None());
  if (dict.Find("documents") == nullptr) dict.Set("documents", TemplateValue::None());
  if (conversation.adds_generation_prompt && conversation.continues_final_message) {
    return absl::InvalidArgumentError("add_generation_prompt and continue_final_message exclude each other");
  }
  dict.Set("add_generation_prompt", TemplateValue::Bool(conversation.adds_generation_prompt));
  for (const auto& [name, text] : source_.special_tokens) dict.Set(name, TemplateValue::Trusted(text));
  return variables;
}

absl::StatusOr<TemplateString> ChatTemplate::RenderAs(const Conversation& conversation, const Forms& forms) const {
  ASSIGN_OR_RETURN(const TemplateValue variables, Variables(conversation, forms));
  JinjaRenderOptions options;
  options.now = conversation.now == absl::InfinitePast() ? absl::Now() : conversation.now;
  const bool uses_tools = tool_use_.has_value() && HasTools(conversation);
  return (uses_tools ? *tool_use_ : plain_).Render(variables, options);
}

absl::StatusOr<RenderedPrompt> ChatTemplate::Render(const Conversation& conversation) const {
  ASSIGN_OR_RETURN(TemplateString prompt, RenderAs(conversation, forms_));
  if (conversation.continues_final_message) {
    ASSIGN_OR_RETURN(prompt, CutAfterFinalMessage(prompt, conversation));
  }
  return RenderedPrompt{std::move(prompt)};
}

absl::StatusOr<std::vector<int32_t>> ChatTemplate::Encode(const Conversation& conversation,
                                                          const Tokenizer& tokenizer) const {
  ASSIGN_OR_RETURN(const RenderedPrompt prompt, Render(conversation));
  const std::vector<TextSegment> segments = prompt.segments();
  return tokenizer.EncodeSegments(segments);
}

}  // namespace millrace
