// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/chat_messages.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/grammar/json_schema.h"
#include "engine/text/template_json.h"
#include "server/wire/api_error.h"
#include "server/wire/json_writer.h"

namespace millrace {
namespace {

constexpr int kMaxMessages = 4096;
constexpr int kMaxTools = 512;

absl::StatusOr<TemplateValue> ParseObject(const std::string& text, const char* field) {
  auto value = ParseJsonValue(text);
  if (!value.ok()) return WithErrorParam(value.status(), field);
  if (!value->is_dict()) return ParamError(field, absl::StrCat(field, " must be a JSON object"), kInvalidType);
  return value;
}

// The list that templates expect: {"type": "function", "function": {name, description, parameters}}.
absl::StatusOr<TemplateValue> ReadTools(const google::protobuf::RepeatedPtrField<v1::Tool>& tools) {
  std::string json = "[";
  for (const v1::Tool& tool : tools) {
    if (tool.name().empty()) return ParamError("tools", "a tool needs a name", kMissingParameter);
    if (json.size() > 1) json += ',';
    json += R"({"type":"function","function":{"name":)";
    AppendJsonString(tool.name(), json);
    json += R"(,"description":)";
    AppendJsonString(tool.description(), json);
    if (!tool.parameters().empty()) {
      // Checked alone, so that it cannot close the object it is put into.
      if (auto schema = ParseObject(tool.parameters(), "tools"); !schema.ok()) return schema.status();
      absl::StrAppend(&json, ",\"parameters\":", tool.parameters());
    }
    json += "}}";
  }
  json += ']';
  auto value = ParseJsonValue(json);
  if (!value.ok()) return WithErrorParam(value.status(), "tools");
  return value;
}

absl::StatusOr<ChatMessage> ReadMessage(const v1::ChatMessage& message) {
  if (message.role().empty()) return ParamError("messages", "a message needs a role", kMissingParameter);
  ChatMessage read;
  read.role = message.role();
  if (!message.content().empty() || message.tool_calls().empty()) read.content = message.content();
  read.name = message.name();
  read.tool_call_id = message.tool_call_id();
  read.reasoning_content = message.reasoning();
  for (const v1::ToolCall& call : message.tool_calls()) {
    if (call.name().empty()) return ParamError("messages", "a tool call needs a name", kMissingParameter);
    read.tool_calls.push_back({.id = call.id(), .name = call.name(), .arguments = call.arguments()});
  }
  return read;
}

}  // namespace

absl::StatusOr<Conversation> ReadConversation(const google::protobuf::RepeatedPtrField<v1::ChatMessage>& messages,
                                              const google::protobuf::RepeatedPtrField<v1::Tool>& tools,
                                              const std::string& template_variables) {
  if (messages.empty()) return ParamError("messages", "at least one message is required", kMissingParameter);
  if (messages.size() > kMaxMessages)
    return ParamError("messages", absl::StrCat("at most ", kMaxMessages, " messages"));
  if (tools.size() > kMaxTools) return ParamError("tools", absl::StrCat("at most ", kMaxTools, " tools"));
  Conversation conversation;
  for (const v1::ChatMessage& message : messages) {
    auto read = ReadMessage(message);
    if (!read.ok()) return read.status();
    conversation.messages.push_back(*std::move(read));
  }
  if (!tools.empty()) {
    auto value = ReadTools(tools);
    if (!value.ok()) return value.status();
    conversation.tools = *std::move(value);
  }
  if (!template_variables.empty()) {
    auto value = ParseObject(template_variables, "template_variables");
    if (!value.ok()) return value.status();
    conversation.template_variables = *std::move(value);
  }
  return conversation;
}

absl::Status ReadToolChoice(const v1::ToolChoice& choice, std::vector<std::string> names, ChatRequest& request) {
  constexpr char kField[] = "tool_choice";
  if (choice.has_function()) {
    if (std::find(names.begin(), names.end(), choice.function()) == names.end()) {
      return ParamError(kField, "names a tool that is not offered");
    }
    request.required_tools = {choice.function()};
    request.calls_once = true;
    return absl::OkStatus();
  }
  switch (choice.mode()) {
    case v1::ToolChoice::MODE_UNSPECIFIED:
    case v1::ToolChoice::MODE_AUTO:
      return absl::OkStatus();
    case v1::ToolChoice::MODE_NONE:
      request.conversation.tools = TemplateValue();
      return absl::OkStatus();
    case v1::ToolChoice::MODE_REQUIRED:
      if (names.empty()) return ParamError(kField, "needs tools");
      request.required_tools = std::move(names);
      return absl::OkStatus();
    default:
      return ParamError(kField, absl::StrCat("has no mode ", static_cast<int>(choice.mode())));
  }
}

absl::Status ReadResponseFormat(const v1::ResponseFormat& format, GenerationParams& params) {
  constexpr char kField[] = "response_format";
  if (format.has_json_object() && format.json_object()) params.grammar = AnyJsonObject();
  if (!format.has_json_schema()) return absl::OkStatus();
  auto schema = ParseObject(format.json_schema(), kField);
  if (!schema.ok()) return schema.status();
  auto grammar = CompileJsonSchema(*schema);
  if (!grammar.ok()) return ParamError(kField, std::string(grammar.status().message()), kUnsupportedValue);
  params.grammar = *std::move(grammar);
  return absl::OkStatus();
}

}  // namespace millrace
