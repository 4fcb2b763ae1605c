// SPDX-License-Identifier: Apache-2.0
// OpenAI's messages and tools to a Conversation.
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/text/template_json.h"
#include "engine/text/template_value.h"
#include "server/api/parse_common.h"

namespace millrace {
namespace {

using nlohmann::json;

constexpr size_t kMaxMessages = 16384;
constexpr size_t kMaxTools = 1024;
constexpr size_t kMaxRoleBytes = 64;

// The body once more, with the keys of its objects in the client's order: json sorts them, and a model that was trained
// on tools as clients write them calls worse when it reads them sorted. Parsed only when something asks. Of equal keys
// the last wins here as there, so what was checked in the one is there in the other.
class OrderedBody {
 public:
  explicit OrderedBody(std::string_view text) : text_(text) {}

  // REQUIRES: the body has the member.
  absl::StatusOr<TemplateValue> Member(std::string_view name) {
    if (!body_.has_value()) body_ = ParseJsonValue(text_);
    if (!body_->ok()) return body_->status();
    const TemplateValue* member = (*body_)->as_dict().Find(name);
    return member == nullptr ? TemplateValue() : *member;
  }

 private:
  const std::string_view text_;
  std::optional<absl::StatusOr<TemplateValue>> body_;
};

void ReadContentParts(const json& content, JsonFields& fields, std::vector<ContentPart>& parts) {
  for (const json& item : content) {
    if (!item.is_object()) return fields.Fail("content", "must be a list of objects", kInvalidType);
    JsonFields part(item, fields.path() + "content.");
    ContentPart out;
    part.Read("type", out.type);
    if (out.type == "text" || out.type == "input_text" || out.type == "output_text") {
      out.type = "text";
      if (part.Find("text") == nullptr) part.Fail("text", "is required", kMissingParameter);
      part.Read("text", out.text);
    } else if (out.type == "refusal") {
      out.type = "text";
      part.Read("refusal", out.text);
    } else {
      part.Fail("type", absl::StrCat("'", out.type.substr(0, 64), "' is not supported: this model reads text only"),
                kUnsupportedValue);
    }
    fields.Adopt(part);
    parts.push_back(std::move(out));
  }
}

void ReadContent(JsonFields& fields, ChatContent& content) {
  const json* value = fields.Find("content");
  if (value == nullptr) return;
  if (value->is_string()) {
    content = value->get<std::string>();
  } else if (value->is_array()) {
    ReadContentParts(*value, fields, content.emplace<std::vector<ContentPart>>());
  } else {
    fields.Fail("content", absl::StrCat("must be a string or a list of parts, not ", value->type_name()), kInvalidType);
  }
}

// Arguments that came as an object, as JSON text in the client's order.
absl::StatusOr<std::string> ArgumentsText(OrderedBody& body, size_t message, size_t call) {
  const absl::StatusOr<TemplateValue> messages = body.Member("messages");
  if (!messages.ok()) return messages.status();
  const TemplateDict& in_message = messages->as_list().items[message].as_dict();
  const TemplateDict& in_call = in_message.Find("tool_calls")->as_list().items[call].as_dict();
  TemplateStringBuilder text;
  const TemplateValue& arguments = *in_call.Find("function")->as_dict().Find("arguments");
  if (absl::Status status = AppendJson(arguments, {}, text); !status.ok()) return status;
  return std::string(text.Build().view());
}

void ReadToolCalls(JsonFields& fields, OrderedBody& body, size_t message, std::vector<ChatToolCall>& calls) {
  const json* list = fields.Find("tool_calls");
  if (list == nullptr) return;
  if (!list->is_array()) return fields.Fail("tool_calls", "must be a list of tool calls", kInvalidType);
  if (list->size() > kMaxTools) return fields.Fail("tool_calls", absl::StrCat("has more than ", kMaxTools, " items"));
  for (const json& item : *list) {
    const json* function = item.is_object() && item.contains("function") ? &item["function"] : nullptr;
    if (function == nullptr || !function->is_object()) {
      return fields.Fail("tool_calls", "must hold {id, type, function}", kInvalidType);
    }
    ChatToolCall call;
    JsonFields outer(item, fields.path() + "tool_calls.");
    JsonFields inner(*function, fields.path() + "tool_calls.function.");
    outer.Read("id", call.id);
    inner.Read("name", call.name);
    if (call.name.empty()) inner.Fail("name", "is required", kMissingParameter);
    // OpenAI sends JSON text; some clients send the object itself.
    const json* arguments = inner.Find("arguments");
    if (arguments != nullptr && arguments->is_object()) {
      auto text = ArgumentsText(body, message, calls.size());
      if (!text.ok()) return fields.Fail("tool_calls", std::string(text.status().message()));
      call.arguments = *std::move(text);
    } else {
      inner.Read("arguments", call.arguments);
    }
    fields.Adopt(outer);
    fields.Adopt(inner);
    calls.push_back(std::move(call));
  }
}

void ReadMessage(JsonFields& fields, OrderedBody& body, size_t index, ChatMessage& message) {
  fields.Read("role", message.role);
  if (message.role.empty()) fields.Fail("role", "is required: system, user, assistant, tool, ...", kMissingParameter);
  if (message.role.size() > kMaxRoleBytes)
    fields.Fail("role", absl::StrCat("is longer than ", kMaxRoleBytes, " bytes"));
  ReadContent(fields, message.content);
  fields.Read("name", message.name);
  fields.Read("tool_call_id", message.tool_call_id);
  fields.Read("reasoning_content", message.reasoning_content);
  if (message.reasoning_content.empty()) fields.Read("reasoning", message.reasoning_content);
  ReadToolCalls(fields, body, index, message.tool_calls);
}

void ReadMessages(JsonFields& fields, OrderedBody& body, std::vector<ChatMessage>& messages) {
  const json* list = fields.Find("messages");
  if (list == nullptr) return fields.Fail("messages", "is required", kMissingParameter);
  if (!list->is_array()) {
    return fields.Fail("messages", absl::StrCat("must be a list, not ", list->type_name()), kInvalidType);
  }
  if (list->empty()) return fields.Fail("messages", "must not be empty");
  if (list->size() > kMaxMessages) return fields.Fail("messages", absl::StrCat("has more than ", kMaxMessages));
  for (size_t i = 0; i < list->size(); ++i) {
    const json& item = (*list)[i];
    if (!item.is_object()) return fields.Fail("messages", "must hold objects", kInvalidType);
    JsonFields inner(item, absl::StrCat("messages[", i, "]."));
    ReadMessage(inner, body, i, messages.emplace_back());
    fields.Adopt(inner);
    if (!fields.status().ok()) return;
  }
}

// tool_choice "required" or {type: function, function: {name}}: what must be called. REQUIRES: tools were checked.
void ReadRequiredTools(JsonFields& fields, const json& tools, ChatRequest& request) {
  bool may_repeat = true;
  fields.Read("parallel_tool_calls", may_repeat);
  request.calls_once = !may_repeat;
  const json* choice = fields.Find("tool_choice");
  if (choice == nullptr || (!choice->is_object() && *choice != "required")) return;
  const json* function = choice->is_object() && choice->contains("function") ? &(*choice)["function"] : nullptr;
  const bool is_named = choice->is_object();
  if (is_named && (function == nullptr || !function->is_object() || !function->contains("name"))) {
    return fields.Fail("tool_choice", "must be 'auto', 'none', 'required' or {type: function, function: {name}}");
  }
  request.calls_once |= is_named;
  for (const json& tool : tools) {
    const json& name = tool["function"]["name"];
    if (!is_named || name == (*function)["name"]) request.required_tools.push_back(name.get<std::string>());
  }
  if (request.required_tools.empty()) fields.Fail("tool_choice", "names a function that 'tools' does not have");
}

// Tools reach the template as they are; nothing is offered with tool_choice "none".
void ReadTools(JsonFields& fields, OrderedBody& body, ChatRequest& request) {
  const json* tools = fields.Find("tools");
  const json* choice = fields.Find("tool_choice");
  if (choice != nullptr && !choice->is_string() && !choice->is_object()) {
    fields.Fail("tool_choice", "must be a string or an object", kInvalidType);
  }
  const bool demands_call = choice != nullptr && (choice->is_object() || *choice == "required");
  if (demands_call && (tools == nullptr || tools->empty())) return fields.Fail("tool_choice", "needs 'tools'");
  if (tools == nullptr) return;
  if (!tools->is_array()) {
    return fields.Fail("tools", absl::StrCat("must be a list, not ", tools->type_name()), kInvalidType);
  }
  if (tools->size() > kMaxTools) return fields.Fail("tools", absl::StrCat("has more than ", kMaxTools, " items"));
  for (const json& tool : *tools) {
    const json* function = tool.is_object() && tool.contains("function") ? &tool["function"] : nullptr;
    if (function == nullptr || !function->is_object() || !function->contains("name") ||
        !(*function)["name"].is_string()) {
      return fields.Fail("tools", "must hold {type: function, function: {name, description, parameters}}");
    }
  }
  ReadRequiredTools(fields, *tools, request);
  if (tools->empty() || (choice != nullptr && *choice == "none")) return;
  auto value = body.Member("tools");
  if (!value.ok()) return fields.Fail("tools", std::string(value.status().message()));
  request.conversation.tools = *std::move(value);
}

}  // namespace

void ReadConversation(JsonFields& fields, std::string_view text, ChatRequest& request) {
  Conversation& conversation = request.conversation;
  OrderedBody body(text);
  ReadMessages(fields, body, conversation.messages);
  ReadTools(fields, body, request);
  fields.Read("add_generation_prompt", conversation.adds_generation_prompt);
  fields.Read("continue_final_message", conversation.continues_final_message);
  if (conversation.continues_final_message) {
    const json* adds = fields.Find("add_generation_prompt");
    if (adds != nullptr && *adds == true) {
      fields.Fail("continue_final_message", "and 'add_generation_prompt' cannot both be true");
    }
    conversation.adds_generation_prompt = false;
  }
  conversation.now = absl::Now();
  // A template from a client would be a program from a client.
  fields.RefuseUnlessNull("chat_template", "is not accepted in requests");
  if (const json* variables = fields.Find("chat_template_kwargs")) {
    if (!variables->is_object()) return fields.Fail("chat_template_kwargs", "must be an object", kInvalidType);
    auto value = body.Member("chat_template_kwargs");
    if (!value.ok()) return fields.Fail("chat_template_kwargs", std::string(value.status().message()));
    conversation.template_variables = *std::move(value);
  }
}

}  // namespace millrace
