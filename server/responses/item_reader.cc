// SPDX-License-Identifier: Apache-2.0
#include "server/responses/item_reader.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "agent/mcp/tool_definition.h"
#include "server/agents/tool_set.h"
#include "server/http/http_message.h"
#include "server/wire/json_fields.h"
#include "server/wire/json_object.h"

namespace millrace {
namespace {

using nlohmann::json;

constexpr size_t kMaxIdBytes = 256;
constexpr char kPackedPrefix[] = "text-base64:";  // what it is, for whoever wonders: nothing is secret in it

std::string Member(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

bool IsTextPart(const std::string& type) {
  return type == "input_text" || type == "output_text" || type == "text" || type == "reasoning_text" ||
         type == "summary_text";
}

// The text of a string or of a list of parts, in `content`.
void ReadText(JsonFields& fields, const char* name, std::string& text) {
  const json* value = fields.Find(name);
  if (value == nullptr) return fields.Fail(name, "is required", kMissingParameter);
  if (value->is_string()) {
    text = value->get<std::string>();
    return;
  }
  if (!value->is_array()) return fields.Fail(name, "must be a string or a list of parts", kInvalidType);
  for (size_t i = 0; i < value->size(); ++i) {
    const json& part = (*value)[i];
    JsonFields inner(part, absl::StrCat(fields.path(), name, "[", i, "]."));
    std::string type, piece;
    inner.Read("type", type);
    if (IsTextPart(type)) {
      if (inner.Find("text") == nullptr) inner.Fail("text", "is required", kMissingParameter);
      inner.Read("text", piece);
    } else if (type == "refusal") {
      inner.Read("refusal", piece);
    } else {
      inner.Fail("type", absl::StrCat("'", type.substr(0, 64), "' is not supported: this model reads text only"),
                 kUnsupportedValue);
    }
    fields.Adopt(inner);
    text += piece;
  }
}

// A name, an id: required, not empty and not endless.
void ReadId(JsonFields& fields, const char* name, std::string& id) {
  fields.Read(name, id);
  if (id.empty()) fields.Fail(name, "is required", kMissingParameter);
  if (id.size() > kMaxIdBytes) fields.Fail(name, absl::StrCat("is longer than ", kMaxIdBytes, " bytes"));
}

bool HasOpenCalls(const std::vector<ChatMessage>& messages) {
  return !messages.empty() && messages.back().role == "assistant" && !messages.back().tool_calls.empty();
}

}  // namespace

std::string PackReasoning(std::string_view text) {
  return absl::StrCat(kPackedPrefix, absl::Base64Escape({text.data(), text.size()}));
}

std::string UnpackReasoning(std::string_view packed) {
  absl::string_view rest(packed.data(), packed.size());
  std::string text;
  if (!absl::ConsumePrefix(&rest, kPackedPrefix) || !absl::Base64Unescape(rest, &text)) return {};
  return ToValidUtf8(text);
}

absl::Status ItemReader::Add(const json& item, const std::string& path) {
  if (!item.is_object()) return ParamError(path, absl::StrCat("'", path, "' must be an object"), kInvalidType);
  const bool has_role = item.contains("role");
  const std::string type = item.contains("type") && !item["type"].is_null() ? Member(item, "type") : "message";
  if (type == "message" && (has_role || item.contains("type"))) return AddMessage(item, path);
  if (type == "reasoning") return AddReasoning(item);
  if (type == "function_call") return AddCall(item, path);
  if (type == "function_call_output") return AddCallOutput(item, path);
  if (type == "mcp_call") return AddServerCall(item, path);
  if (type == "code_interpreter_call") return AddCodeCall(item, path);
  if (type == "mcp_list_tools") {
    listed_servers_.insert(Member(item, "server_label"));
    return absl::OkStatus();
  }
  return ParamError(path + ".type", absl::StrCat("'", path, ".type' '", type.substr(0, 64), "' is not supported"),
                    kUnsupportedValue);
}

// A developer's word is the system's: hardly any template knows the newer role.
absl::Status ItemReader::AddMessage(const json& item, const std::string& path) {
  JsonFields fields(item, path + ".");
  std::string role, text;
  fields.Read("role", role);
  if (role == "developer") role = "system";
  if (role != "user" && role != "assistant" && role != "system") {
    fields.Fail("role", "must be 'user', 'assistant', 'system' or 'developer'");
  }
  ReadText(fields, "content", text);
  if (!fields.status().ok()) return fields.status();
  // Text that a turn wrote beside its calls belongs to the same message.
  if (role == "assistant" && HasOpenCalls(messages_) && messages_.back().content.index() == 0) {
    messages_.back().content = std::move(text);
    return absl::OkStatus();
  }
  // Templates want the system to speak once, and first.
  if (role == "system" && messages_.size() == 1 && messages_.front().role == "system") {
    absl::StrAppend(std::get_if<std::string>(&messages_.front().content), "\n\n", text);
    return absl::OkStatus();
  }
  ChatMessage message{.role = role, .content = std::move(text)};
  if (role == "assistant") message.reasoning_content = std::exchange(reasoning_, {});
  messages_.push_back(std::move(message));
  return absl::OkStatus();
}

// The text itself, else a summary, else what we packed; another provider's secrets are passed over.
absl::Status ItemReader::AddReasoning(const json& item) {
  std::string text;
  for (const char* name : {"content", "summary"}) {
    if (!text.empty() || !item.contains(name) || !item[name].is_array()) continue;
    for (const json& part : item[name]) {
      if (part.is_object()) text += Member(part, "text");
    }
  }
  if (text.empty()) text = UnpackReasoning(Member(item, "encrypted_content"));
  reasoning_ = std::move(text);
  return absl::OkStatus();
}

void ItemReader::AppendCall(ChatToolCall call) {
  const bool joins = !messages_.empty() && messages_.back().role == "assistant" && reasoning_.empty();
  if (!joins) messages_.push_back({.role = "assistant", .reasoning_content = std::exchange(reasoning_, {})});
  messages_.back().tool_calls.push_back(std::move(call));
}

void ItemReader::AppendResult(std::string call_id, std::string text) {
  messages_.push_back({.role = "tool", .content = std::move(text), .tool_call_id = std::move(call_id)});
}

absl::Status ItemReader::AddCall(const json& item, const std::string& path) {
  JsonFields fields(item, path + ".");
  ChatToolCall call;
  ReadId(fields, "call_id", call.id);
  ReadId(fields, "name", call.name);
  fields.Read("arguments", call.arguments);
  if (!fields.status().ok()) return fields.status();
  call_ids_.insert(call.id);
  AppendCall(std::move(call));
  return absl::OkStatus();
}

absl::Status ItemReader::AddCallOutput(const json& item, const std::string& path) {
  JsonFields fields(item, path + ".");
  std::string call_id, text;
  ReadId(fields, "call_id", call_id);
  ReadText(fields, "output", text);
  if (fields.status().ok() && !call_ids_.contains(call_id)) {
    fields.Fail("call_id", absl::StrCat("is no function call's: no tool call found for '", call_id, "'"));
  }
  if (!fields.status().ok()) return fields.status();
  AppendResult(std::move(call_id), std::move(text));
  return absl::OkStatus();
}

// A call that a server ran carries its result.
absl::Status ItemReader::AddServerCall(const json& item, const std::string& path) {
  JsonFields fields(item, path + ".");
  ChatToolCall call;
  std::string text;
  ReadId(fields, "id", call.id);
  ReadId(fields, "name", call.name);
  fields.Read("arguments", call.arguments);
  fields.Read("output", text);
  if (!fields.status().ok()) return fields.status();
  // As the model called it.
  const std::string label = Member(item, "server_label");
  if (!label.empty() && label != kOwnToolServer) call.name = McpToolName(label, call.name);
  if (const json* error = fields.Find("error"); error != nullptr && text.empty()) {
    text = error->is_string() ? error->get<std::string>() : Member(*error, "message");
    if (text.empty() && error->is_object()) text = Member(*error, "content");
  }
  std::string id = call.id;
  AppendCall(std::move(call));
  AppendResult(std::move(id), std::move(text));
  return absl::OkStatus();
}

absl::Status ItemReader::AddCodeCall(const json& item, const std::string& path) {
  JsonFields fields(item, path + ".");
  ChatToolCall call{.name = "python"};
  std::string code, text;
  ReadId(fields, "id", call.id);
  fields.Read("code", code);
  if (!fields.status().ok()) return fields.status();
  JsonObject(call.arguments).Text("code", code).End();
  if (const json* outputs = fields.Find("outputs"); outputs != nullptr && outputs->is_array()) {
    for (const json& output : *outputs) {
      if (output.is_object()) text += Member(output, "logs");
    }
  }
  std::string id = call.id;
  AppendCall(std::move(call));
  AppendResult(std::move(id), std::move(text));
  return absl::OkStatus();
}

void CompleteItem(json& item) {
  if (Member(item, "type").empty()) item["type"] = "message";
  const std::string type = item["type"];
  const char* prefix = type == "message"                ? "msg_"
                       : type == "reasoning"            ? "rs_"
                       : type == "function_call"        ? "fc_"
                       : type == "function_call_output" ? "fco_"
                                                        : "item_";
  const std::string id = Member(item, "id");
  if (id.empty() || id.size() > kMaxIdBytes) item["id"] = prefix + RandomId();
  if (Member(item, "status").empty()) item["status"] = "completed";
  if (type == "reasoning" && !item.contains("summary")) item["summary"] = json::array();
  if (type != "message") return;
  const bool is_answer = item["role"] == "assistant";
  if (item["content"].is_string()) {
    item["content"] =
        json::array({{{"type", is_answer ? "output_text" : "input_text"}, {"text", std::move(item["content"])}}});
  }
  for (json& part : item["content"]) {
    if (part.contains("refusal")) continue;
    part["type"] = is_answer ? "output_text" : "input_text";
    if (!is_answer) continue;
    for (const char* name : {"annotations", "logprobs"}) {
      if (!part.contains(name)) part[name] = json::array();
    }
  }
}

}  // namespace millrace
