// SPDX-License-Identifier: Apache-2.0
#include "server/messages/block_reader.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "agent/mcp/tool_definition.h"
#include "engine/text/template_json.h"
#include "server/agents/tool_set.h"

namespace millrace {
namespace {

using nlohmann::json;

// Claude Code's first block of the system prompt: it differs from request to request, so that no prefix of theirs would
// ever be found again.
constexpr char kBillingHeader[] = "x-anthropic-billing-header:";

// A text block's text, or a document's that came as text.
void ReadBlockText(JsonFields& block, std::string& text) {
  std::string type;
  block.Read("type", type);
  if (type == "text") {
    if (block.Find("text") == nullptr) block.Fail("text", "is required", kMissingParameter);
    return block.Read("text", text);
  }
  const json* source = type == "document" ? block.Find("source") : nullptr;
  if (source != nullptr && source->is_object()) {
    JsonFields inner(*source, block.path() + "source.");
    std::string kind;
    inner.Read("type", kind);
    inner.Read("data", text);
    if (kind == "text") return block.Adopt(inner);
  }
  block.Fail("type", absl::StrCat("'", type.substr(0, 64), "' is not supported: this model reads text only"),
             kUnsupportedValue);
}

}  // namespace

std::string ReadBlocksText(JsonFields& fields, const char* name, std::string_view separator) {
  std::string text;
  const json* value = fields.Find(name);
  if (value == nullptr) return text;
  if (value->is_string()) return value->get<std::string>();
  if (!value->is_array()) {
    fields.Fail(name, "must be a string or a list of blocks", kInvalidType);
    return text;
  }
  for (size_t i = 0; i < value->size(); ++i) {
    JsonFields block((*value)[i], absl::StrCat(fields.path(), name, "[", i, "]."));
    std::string piece;
    ReadBlockText(block, piece);
    fields.Adopt(block);
    if (absl::StartsWith(piece, kBillingHeader)) continue;
    if (!text.empty()) text += separator;
    text += piece;
  }
  return text;
}

void BlockReader::Add(JsonFields& fields, size_t index) {
  message_ = index;
  is_open_ = false;
  role_.clear();
  fields.Read("role", role_);
  if (role_ != "user" && role_ != "assistant" && role_ != "system") {
    return fields.Fail("role", "must be 'user' or 'assistant'",
                       fields.Find("role") == nullptr ? kMissingParameter : kInvalidValue);
  }
  const json* content = fields.Find("content");
  if (content == nullptr) return fields.Fail("content", "is required", kMissingParameter);
  if (content->is_string()) return AppendText(content->get_ref<const std::string&>());
  if (!content->is_array()) return fields.Fail("content", "must be a string or a list of blocks", kInvalidType);
  for (block_ = 0; block_ < content->size() && fields.status().ok(); ++block_) {
    const json& item = (*content)[block_];
    JsonFields block(item, absl::StrCat(fields.path(), "content[", block_, "]."));
    std::string type;
    if (!item.is_object()) return fields.Fail("content", "must hold objects", kInvalidType);
    block.Read("type", type);
    if (type.empty()) block.Fail("type", "is required", kMissingParameter);
    if (block.status().ok()) AddBlock(block, type);
    fields.Adopt(block);
  }
  if (content->empty()) AppendText("");  // an answer of nothing is still a turn
}

void BlockReader::AddBlock(JsonFields& block, const std::string& type) {
  if (type == "tool_use" || type == "mcp_tool_use") return AddToolUse(block);
  if (type == "tool_result" || type == "mcp_tool_result") return AddToolResult(block);
  if (type == "thinking") {
    std::string thinking;
    block.Read("thinking", thinking);
    AppendText("");
    messages_.back().reasoning_content += thinking;
    return;
  }
  // Another provider's thoughts and tools: the text that came of them says enough.
  if (type == "redacted_thinking" || type == "server_tool_use" || absl::EndsWith(type, "_tool_result")) return;
  std::string text;
  ReadBlockText(block, text);
  AppendText(text);
}

// To the message that this one has become; tool results in between begin another.
void BlockReader::AppendText(std::string_view text) {
  if (!std::exchange(is_open_, true)) messages_.push_back({.role = role_});
  ChatContent& content = messages_.back().content;
  if (content.index() == 0) {
    if (text.empty() && role_ == "assistant") return;  // calls or thoughts may be all it has
    content = std::string();
  }
  auto& all = *std::get_if<std::string>(&content);
  if (!all.empty() && !text.empty()) all += '\n';
  all += text;
}

// JSON text with the members in the client's order, as the model once wrote them.
std::string BlockReader::ArgumentsOf(JsonFields& block) const {
  const json* input = block.Find("input");
  if (input == nullptr) return "{}";
  if (!input->is_object()) {
    block.Fail("input", "must be an object", kInvalidType);
    return {};
  }
  const TemplateDict& message = ordered_.as_list().items[message_].as_dict();
  const TemplateDict& ordered = message.Find("content")->as_list().items[block_].as_dict();
  TemplateStringBuilder text;
  if (absl::Status status = AppendJson(*ordered.Find("input"), {}, text); !status.ok()) {
    block.Fail("input", std::string(status.message()));
    return {};
  }
  return std::string(text.Build().view());
}

void BlockReader::AddToolUse(JsonFields& block) {
  ChatToolCall call;
  block.Read("id", call.id);
  block.Read("name", call.name);
  if (call.id.empty()) block.Fail("id", "is required", kMissingParameter);
  if (call.name.empty()) block.Fail("name", "is required", kMissingParameter);
  if (role_ != "assistant") block.Fail("type", "'tool_use' belongs to the assistant");
  // As the model called it.
  std::string server;
  block.Read("server_name", server);
  if (!server.empty() && server != kOwnToolServer) call.name = McpToolName(server, call.name);
  call.arguments = ArgumentsOf(block);
  if (!block.status().ok()) return;
  AppendText("");
  messages_.back().tool_calls.push_back(std::move(call));
}

void BlockReader::AddToolResult(JsonFields& block) {
  std::string id;
  bool is_error = false;
  block.Read("tool_use_id", id);
  block.Read("is_error", is_error);
  if (id.empty()) block.Fail("tool_use_id", "is required", kMissingParameter);
  std::string text = ReadBlocksText(block, "content", "\n");
  if (is_error) text = "Error: " + text;
  messages_.push_back({.role = "tool", .content = std::move(text), .tool_call_id = std::move(id)});
  is_open_ = false;
}

}  // namespace millrace
