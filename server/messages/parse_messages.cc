// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/grammar/json_schema.h"
#include "engine/text/offered_tool.h"
#include "engine/text/template_json.h"
#include "server/api/parse_common.h"
#include "server/messages/block_reader.h"
#include "server/messages/messages_request.h"

namespace millrace {
namespace {

using nlohmann::json;

constexpr size_t kMaxMessages = 16384;
constexpr size_t kMaxTools = 1024;
constexpr size_t kMaxStops = 16;
constexpr size_t kMaxStopBytes = 1024;

// `ordered`, here and below: the body, or the part of it, with its members in the client's order, which is the one that
// models should read and write.
void ReadMessageList(JsonFields& fields, const TemplateDict& ordered, Conversation& conversation) {
  std::string system = ReadBlocksText(fields, "system", "\n\n");
  if (!system.empty()) conversation.messages.push_back({.role = "system", .content = std::move(system)});
  const json* list = fields.Find("messages");
  if (list == nullptr) return fields.Fail("messages", "is required", kMissingParameter);
  if (!list->is_array()) return fields.Fail("messages", "must be a list", kInvalidType);
  if (list->empty()) return fields.Fail("messages", "must not be empty");
  if (list->size() > kMaxMessages) return fields.Fail("messages", absl::StrCat("has more than ", kMaxMessages));
  BlockReader reader(conversation.messages, *ordered.Find("messages"));
  for (size_t i = 0; i < list->size(); ++i) {
    if (!(*list)[i].is_object()) return fields.Fail("messages", "must hold objects", kInvalidType);
    JsonFields inner((*list)[i], absl::StrCat("messages[", i, "]."));
    reader.Add(inner, i);
    fields.Adopt(inner);
    if (!fields.status().ok()) return;
  }
  if (conversation.messages.empty()) return fields.Fail("messages", "hold nothing that this model reads");
  // A last word of the assistant's is one to go on with.
  const ChatMessage& last = conversation.messages.back();
  const auto* text = std::get_if<std::string>(&last.content);
  if (last.role != "assistant" || !last.tool_calls.empty() || text == nullptr || text->empty()) return;
  conversation.continues_final_message = true;
  conversation.adds_generation_prompt = false;
}

// A function as the templates know it.
TemplateValue ChatTool(const TemplateDict& ordered) {
  TemplateValue function = TemplateValue::Dict();
  constexpr std::pair<const char*, const char*> kMembers[] = {
      {"name", "name"}, {"description", "description"}, {"input_schema", "parameters"}};
  for (const auto& [from, to] : kMembers) {
    const TemplateValue* member = ordered.Find(from);
    if (member != nullptr && !member->is_none()) function.as_dict().Set(to, *member);
  }
  return OfferFunction(std::move(function));
}

// All tools of a server that we know by its name, or those that `configs` enables where `default_config` disables all.
void ReadToolset(JsonFields& tool, MessagesRequest& request) {
  ToolServerChoice server;
  tool.Read("mcp_server_name", server.label);
  if (server.label.empty()) tool.Fail("mcp_server_name", "is required", kMissingParameter);
  for (const ToolServerChoice& other : request.tool_servers) {
    if (other.label == server.label) tool.Fail("mcp_server_name", "is named by another tool set");
  }
  const auto is_enabled = [&tool](const json* config, bool by_default) {
    if (config == nullptr) return by_default;
    if (!config->is_object()) tool.Fail("configs", "must be objects", kInvalidType);
    JsonFields fields(*config, tool.path() + "configs.");
    fields.Read("enabled", by_default);
    tool.Adopt(fields);
    return by_default;
  };
  const bool are_all = is_enabled(tool.Find("default_config"), true);
  if (!are_all) server.allowed.emplace();
  const json* configs = tool.Find("configs");
  if (configs != nullptr && !configs->is_object()) return tool.Fail("configs", "must be an object", kInvalidType);
  if (configs == nullptr) return request.tool_servers.push_back(std::move(server));
  for (const auto& [name, config] : configs->items()) {
    const bool is_allowed = is_enabled(&config, are_all);
    if (are_all && !is_allowed) {
      tool.Fail("configs", "can disable a tool only where 'default_config' disables all", kUnsupportedValue);
    }
    if (!are_all && is_allowed) server.allowed->push_back(name);
  }
  request.tool_servers.push_back(std::move(server));
}

// Their names. Tools with a type of Anthropic's own run at Anthropic, or are known to its models alone: passed over.
std::vector<std::string> ReadToolList(JsonFields& fields, const TemplateDict& ordered, MessagesRequest& request) {
  std::vector<std::string> names;
  const json* list = fields.Find("tools");
  if (list == nullptr) return names;
  if (!list->is_array()) fields.Fail("tools", "must be a list", kInvalidType);
  if (list->size() > kMaxTools) fields.Fail("tools", absl::StrCat("has more than ", kMaxTools, " items"));
  std::vector<TemplateValue> tools;
  for (size_t i = 0; i < list->size() && fields.status().ok(); ++i) {
    JsonFields tool((*list)[i], absl::StrCat("tools[", i, "]."));
    std::string type, name, description;
    tool.Read("type", type);
    if (type == "mcp_toolset") {
      ReadToolset(tool, request);
      fields.Adopt(tool);
    }
    if (!type.empty() && type != "custom") continue;
    tool.Read("name", name);
    tool.Read("description", description);
    const json* schema = tool.Find("input_schema");
    if (name.empty()) tool.Fail("name", "is required", kMissingParameter);
    if (std::find(names.begin(), names.end(), name) != names.end()) tool.Fail("name", "is taken by another tool");
    if (schema == nullptr) {
      tool.Fail("input_schema", "is required", kMissingParameter);
    } else if (!schema->is_object()) {
      tool.Fail("input_schema", "must be an object", kInvalidType);
    }
    fields.Adopt(tool);
    if (!tool.status().ok()) break;
    names.push_back(std::move(name));
    tools.push_back(ChatTool(ordered.Find("tools")->as_list().items[i].as_dict()));
  }
  if (!tools.empty()) request.chat.conversation.tools = TemplateValue::List(std::move(tools));
  return names;
}

void ReadToolChoice(JsonFields& fields, std::vector<std::string> names, MessagesRequest& request) {
  ChatRequest& chat = request.chat;
  const json* choice = fields.Find("tool_choice");
  if (choice == nullptr) return;
  if (!choice->is_object()) return fields.Fail("tool_choice", "must be an object", kInvalidType);
  JsonFields inner(*choice, "tool_choice.");
  std::string type, name;
  inner.Read("type", type);
  inner.Read("disable_parallel_tool_use", chat.calls_once);
  if (type == "none") {
    request.forbids_calls = true;
    chat.conversation.tools = TemplateValue();
    request.tool_servers.clear();
  } else if (type == "any") {
    request.must_call = true;
    if (names.empty() && request.tool_servers.empty()) inner.Fail("type", "needs 'tools'");
    chat.required_tools = std::move(names);
  } else if (type == "tool") {
    inner.Read("name", name);
    if (std::find(names.begin(), names.end(), name) == names.end()) inner.Fail("name", "is not among the 'tools'");
    chat.required_tools = {name};
    chat.calls_once = true;
  } else if (type != "auto") {
    inner.Fail("type", "must be 'auto', 'any', 'tool' or 'none'");
  }
  fields.Adopt(inner);
}

void ReadThinking(JsonFields& fields, MessagesRequest& request) {
  const json* thinking = fields.Find("thinking");
  if (thinking == nullptr) return;
  if (!thinking->is_object()) return fields.Fail("thinking", "must be an object", kInvalidType);
  JsonFields inner(*thinking, "thinking.");
  std::string type, display;
  inner.Read("type", type);
  inner.Read("display", display);
  if (type != "enabled" && type != "disabled" && type != "adaptive" && type != "between_tools") {
    inner.Fail("type", "must be 'enabled', 'disabled' or 'adaptive'");
  }
  fields.Adopt(inner);
  request.shows_thinking = type != "disabled" && display != "omitted";
  TemplateValue variables = TemplateValue::Dict();
  variables.as_dict().Set("enable_thinking", TemplateValue::Bool(type != "disabled"));
  request.chat.conversation.template_variables = std::move(variables);
}

void ReadOutputFormat(JsonFields& fields, const TemplateDict& ordered, GenerationParams& params) {
  const json* config = fields.Find("output_config");
  if (config == nullptr) return;
  if (!config->is_object()) return fields.Fail("output_config", "must be an object", kInvalidType);
  JsonFields outer(*config, "output_config.");
  const json* format = outer.Find("format");
  if (format == nullptr) return;
  JsonFields inner(*format, "output_config.format.");
  std::string type;
  inner.Read("type", type);
  if (type != "json_schema") inner.Fail("type", "must be 'json_schema'");
  const json* schema = inner.Find("schema");
  if (schema == nullptr || !schema->is_object()) inner.Fail("schema", "must be an object", kInvalidType);
  if (inner.status().ok()) {
    const TemplateDict& in_order = ordered.Find("output_config")->as_dict().Find("format")->as_dict();
    auto grammar = CompileJsonSchema(*in_order.Find("schema"));
    if (!grammar.ok()) inner.Fail("schema", std::string(grammar.status().message()), kUnsupportedValue);
    if (grammar.ok()) params.grammar = *std::move(grammar);
  }
  fields.Adopt(inner);
}

void ReadMessagesSampling(JsonFields& fields, MessagesPurpose purpose, GenerationParams& params) {
  fields.ReadInt("max_tokens", 1, 1 << 30, params.max_tokens);
  if (purpose == MessagesPurpose::kAnswer && fields.Find("max_tokens") == nullptr) {
    fields.Fail("max_tokens", "is required", kMissingParameter);
  }
  fields.ReadNumber("temperature", 0, 2, params.temperature);
  fields.ReadNumber("top_p", 0, 1, params.top_p);
  if (params.top_p && *params.top_p <= 0) fields.Fail("top_p", "must be greater than 0");
  fields.ReadInt("top_k", -1, INT32_MAX, params.top_k);
  fields.ReadSeed("seed", params.seed);  // not Anthropic's, but every other route has it
  fields.ReadStrings("stop_sequences", kMaxStops, params.stop);
  for (const std::string& stop : params.stop) {
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      return fields.Fail("stop_sequences", absl::StrCat("must hold strings of 1 to ", kMaxStopBytes, " bytes"));
    }
  }
}

}  // namespace

absl::StatusOr<MessagesRequest> ParseMessages(std::string_view body, MessagesPurpose purpose) {
  const auto document = ParseBody(body);
  if (!document.ok()) return document.status();
  const auto ordered = ParseJsonValue(body);
  if (!ordered.ok()) return WithErrorCode(ordered.status(), "invalid_json");
  const TemplateDict& in_order = ordered->as_dict();
  JsonFields fields(*document);
  MessagesRequest request;
  Conversation& conversation = request.chat.conversation;
  bool is_stream = false;
  fields.Read("model", request.chat.model);
  fields.Read("stream", is_stream);
  request.mode = is_stream ? AnswerMode::kStream : AnswerMode::kWhole;
  ReadMessagesSampling(fields, purpose, request.chat.params);
  ReadMessageList(fields, in_order, conversation);
  ReadToolChoice(fields, ReadToolList(fields, in_order, request), request);
  ReadThinking(fields, request);
  ReadOutputFormat(fields, in_order, request.chat.params);
  if (!fields.status().ok()) return fields.status();
  conversation.now = absl::Now();
  return request;
}

}  // namespace millrace
