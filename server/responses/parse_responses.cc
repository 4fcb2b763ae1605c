// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/grammar/json_schema.h"
#include "engine/text/template_json.h"
#include "server/api/parse_common.h"
#include "server/responses/item_reader.h"
#include "server/responses/parse_tools.h"
#include "server/responses/responses_request.h"
#include "server/wire/json_object.h"

namespace millrace {
namespace {

using nlohmann::json;

constexpr size_t kMaxItems = 16384;
constexpr size_t kMaxMetadata = 16;

std::string Dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

// ---- input ------------------------------------------------------------------------------------------------------

class InputReader {
 public:
  InputReader(const ItemSource& source, ResponsesRequest& request)
      : source_(source), request_(request), items_(request.chat.conversation.messages) {}

  absl::Status AddHistory(const std::string& response_id) {
    if (!source_.history) {
      return ParamError("previous_response_id", "this server stores no responses", kUnsupportedParameter);
    }
    auto lists = source_.history(response_id);
    if (absl::IsNotFound(lists.status())) {
      return WithErrorCode(WithErrorParam(lists.status(), "previous_response_id"), "previous_response_not_found");
    }
    if (!lists.ok()) return WithErrorParam(lists.status(), "previous_response_id");
    for (const std::string& list : *lists) {
      const json items = json::parse(list, nullptr, /*allow_exceptions=*/false);
      if (!items.is_array()) return absl::DataLossError("a stored response cannot be read");
      for (const json& item : items) {
        if (absl::Status status = items_.Add(item, "previous_response_id"); !status.ok()) return status;
      }
    }
    return absl::OkStatus();
  }

  absl::Status AddInput(const json& input) {
    json items = json::array();
    if (input.is_string()) {
      items.push_back({{"role", "user"}, {"content", input}});
    } else if (input.is_array()) {
      items = input;
    } else {
      return ParamError("input", "'input' must be a string or a list of items", kInvalidType);
    }
    if (items.size() > kMaxItems) return ParamError("input", absl::StrCat("'input' has more than ", kMaxItems));
    for (size_t i = 0; i < items.size(); ++i) {
      if (absl::Status status = AddItem(items[i], absl::StrCat("input[", i, "]")); !status.ok()) return status;
    }
    request_.input = Dump(items);
    request_.listed_servers = items_.listed_servers();
    return absl::OkStatus();
  }

 private:
  static bool IsReference(const json& item) {
    if (!item.is_object() || !item.contains("id")) return false;
    if (!item.contains("type") || item["type"].is_null()) return !item.contains("role");
    return item["type"] == "item_reference";
  }

  absl::Status AddItem(json& item, const std::string& path) {
    if (IsReference(item)) {
      if (absl::Status status = Resolve(item, path); !status.ok()) return status;
    }
    if (absl::Status status = items_.Add(item, path); !status.ok()) return status;
    CompleteItem(item);
    request_.item_ids.push_back(item["id"]);
    return absl::OkStatus();
  }

  absl::Status Resolve(json& item, const std::string& path) {
    const std::string param = path + ".id";
    if (!item["id"].is_string()) return ParamError(param, absl::StrCat("'", param, "' must be a string"), kInvalidType);
    if (!source_.item) return ParamError(param, "this server stores no items", kUnsupportedValue);
    auto found = source_.item(item["id"]);
    if (!found.ok()) return WithErrorParam(found.status(), param);
    item = json::parse(*found, nullptr, /*allow_exceptions=*/false);
    return item.is_object() ? absl::OkStatus() : absl::DataLossError("a stored item cannot be read");
  }

  const ItemSource& source_;
  ResponsesRequest& request_;
  ItemReader items_;
};

// ---- the other fields -------------------------------------------------------------------------------------------

void ReadEnum(JsonFields& fields, const char* name, std::span<const std::string_view> values, std::string& out) {
  fields.Read(name, out);
  if (!fields.status().ok() || fields.Find(name) == nullptr) return;
  if (std::find(values.begin(), values.end(), out) == values.end()) {
    fields.Fail(name, absl::StrCat("has no value '", out.substr(0, 64), "'"));
  }
}

// What we know of OpenAI's API and do not serve: a client that relies on it should hear so.
void RefuseUnserved(JsonFields& fields) {
  bool is_background = false;
  fields.Read("background", is_background);
  if (is_background) fields.Fail("background", "is not supported yet", kUnsupportedValue);
  for (const char* name : {"conversation", "prompt"}) fields.RefuseUnlessNull(name);
  std::string truncation;
  constexpr std::string_view kTruncations[] = {"auto", "disabled"};
  ReadEnum(fields, "truncation", kTruncations, truncation);
  if (truncation == "auto") fields.Fail("truncation", "can only be 'disabled'", kUnsupportedValue);
  int32_t num_logprobs = 0;
  fields.ReadInt("top_logprobs", 0, 20, num_logprobs);
  if (num_logprobs > 0) fields.Fail("top_logprobs", "is not supported on this route", kUnsupportedValue);
}

void ReadInclude(JsonFields& fields, ResponsesRequest& request) {
  constexpr std::string_view kKnown[] = {
      "file_search_call.results",      "web_search_call.results",       "web_search_call.action.sources",
      "message.input_image.image_url", "code_interpreter_call.outputs", "computer_call_output.output.image_url",
      "reasoning.encrypted_content",   "message.output_text.logprobs",
  };
  const json* include = fields.Find("include");
  if (include == nullptr) return;
  if (!include->is_array()) return fields.Fail("include", "must be a list of strings", kInvalidType);
  for (const json& item : *include) {
    if (!item.is_string()) return fields.Fail("include", "must be a list of strings", kInvalidType);
    const std::string& name = item.get_ref<const std::string&>();
    if (std::find(std::begin(kKnown), std::end(kKnown), name) == std::end(kKnown)) {
      return fields.Fail("include", absl::StrCat("has no value '", name.substr(0, 64), "'"));
    }
    if (name == "message.output_text.logprobs") {
      return fields.Fail("include", "cannot hold 'message.output_text.logprobs' on this route", kUnsupportedValue);
    }
    if (name == "reasoning.encrypted_content") request.shows_encrypted_reasoning = true;
    if (name == "code_interpreter_call.outputs") request.shows_code_outputs = true;
  }
}

// The effort reaches the template, which may know it; "none" switches thinking off where a template can.
void ReadReasoning(JsonFields& fields, ResponsesRequest& request, std::string& echo) {
  std::string effort, summary;
  const json* reasoning = fields.Find("reasoning");
  if (reasoning != nullptr) {
    if (!reasoning->is_object()) return fields.Fail("reasoning", "must be an object", kInvalidType);
    JsonFields inner(*reasoning, "reasoning.");
    constexpr std::string_view kEfforts[] = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};
    constexpr std::string_view kSummaries[] = {"auto", "concise", "detailed"};
    ReadEnum(inner, "effort", kEfforts, effort);
    ReadEnum(inner, "summary", kSummaries, summary);
    fields.Adopt(inner);
  }
  JsonObject out(echo);
  out.Raw("effort", effort.empty() ? "null" : absl::StrCat("\"", effort, "\""));
  out.Raw("summary", summary.empty() ? "null" : absl::StrCat("\"", summary, "\"")).End();
  if (effort.empty()) return;
  TemplateValue variables = TemplateValue::Dict();
  variables.as_dict().Set("reasoning_effort", TemplateValue::Text(effort));
  if (effort == "none") variables.as_dict().Set("enable_thinking", TemplateValue::Bool(false));
  request.chat.conversation.template_variables = std::move(variables);
}

// The schema with its members in the client's order: that is the order of the answer.
void ReadSchema(JsonFields& format, std::string_view body, GenerationParams& params) {
  std::string name;
  format.Read("name", name);
  if (name.empty()) format.Fail("name", "is required", kMissingParameter);
  const json* schema = format.Find("schema");
  if (schema == nullptr) return format.Fail("schema", "is required", kMissingParameter);
  if (!schema->is_object()) return format.Fail("schema", "must be an object", kInvalidType);
  const auto ordered = ParseJsonValue(body);
  if (!ordered.ok()) return format.Fail("schema", std::string(ordered.status().message()));
  const TemplateDict& text = ordered->as_dict().Find("text")->as_dict();
  auto grammar = CompileJsonSchema(*text.Find("format")->as_dict().Find("schema"));
  if (!grammar.ok()) return format.Fail("schema", std::string(grammar.status().message()), kUnsupportedValue);
  params.grammar = *std::move(grammar);
}

void ReadTextFormat(JsonFields& fields, std::string_view body, GenerationParams& params, std::string& echo) {
  const json* text = fields.Find("text");
  std::string verbosity = "medium";
  const json* format = nullptr;
  if (text != nullptr) {
    if (!text->is_object()) return fields.Fail("text", "must be an object", kInvalidType);
    JsonFields outer(*text, "text.");
    constexpr std::string_view kVerbosities[] = {"low", "medium", "high"};
    ReadEnum(outer, "verbosity", kVerbosities, verbosity);
    format = outer.Find("format");
    if (format != nullptr && !format->is_object()) outer.Fail("format", "must be an object", kInvalidType);
    fields.Adopt(outer);
    if (!fields.status().ok()) return;
  }
  JsonObject(echo)
      .Raw("format", format != nullptr ? Dump(*format) : R"({"type":"text"})")
      .Text("verbosity", verbosity)
      .End();
  if (format == nullptr) return;
  JsonFields inner(*format, "text.format.");
  std::string type;
  constexpr std::string_view kTypes[] = {"text", "json_object", "json_schema"};
  if (inner.Find("type") == nullptr) inner.Fail("type", "is required", kMissingParameter);
  ReadEnum(inner, "type", kTypes, type);
  if (type == "json_object") params.grammar = AnyJsonObject();
  if (type == "json_schema") ReadSchema(inner, body, params);
  fields.Adopt(inner);
}

void ReadSamplingAndLimits(JsonFields& fields, ResponsesRequest& request) {
  GenerationParams& params = request.chat.params;
  fields.ReadNumber("temperature", 0, 2, params.temperature);
  fields.ReadNumber("top_p", 0, 1, params.top_p);
  if (params.top_p && *params.top_p <= 0) fields.Fail("top_p", "must be greater than 0");
  fields.ReadNumber("presence_penalty", -2, 2, params.presence_penalty);
  fields.ReadNumber("frequency_penalty", -2, 2, params.frequency_penalty);
  fields.ReadSeed("seed", params.seed);  // not OpenAI's on this route, but every other route has it
  fields.ReadInt("max_output_tokens", 1, 1 << 30, params.max_tokens);
  fields.ReadInt("max_tool_calls", 0, 1 << 30, request.max_tool_calls);
}

std::string ReadMetadata(JsonFields& fields) {
  const json* metadata = fields.Find("metadata");
  if (metadata == nullptr) return "{}";
  if (!metadata->is_object()) {
    fields.Fail("metadata", "must be an object", kInvalidType);
  } else if (metadata->size() > kMaxMetadata) {
    fields.Fail("metadata", absl::StrCat("has more than ", kMaxMetadata, " items"));
  } else {
    for (const auto& [key, value] : metadata->items()) {
      if (!value.is_string()) fields.Fail("metadata", "must hold strings", kInvalidType);
      if (key.size() > 64 || (value.is_string() && value.get_ref<const std::string&>().size() > 512)) {
        fields.Fail("metadata", "has a key beyond 64 bytes or a value beyond 512");
      }
    }
  }
  return Dump(*metadata);
}

std::string TextOrNull(JsonFields& fields, const char* name) {
  std::string text, out;
  fields.Read(name, text);
  if (fields.Find(name) == nullptr) return "null";
  AppendJsonString(text, out);
  return out;
}

void AppendOptional(JsonObject& echo, const char* name, const std::optional<int32_t>& value) {
  if (value) {
    echo.Int(name, *value);
  } else {
    echo.Raw(name, "null");
  }
}

// Everything but the input.
void ReadFields(JsonFields& fields, std::string_view body, ResponsesRequest& request) {
  bool is_stream = false;
  fields.Read("model", request.chat.model);
  fields.Read("stream", is_stream);
  request.mode = is_stream ? AnswerMode::kStream : AnswerMode::kWhole;
  fields.Read("store", request.is_stored);
  fields.Read("previous_response_id", request.previous_response_id);
  RefuseUnserved(fields);
  ReadInclude(fields, request);
  ReadSamplingAndLimits(fields, request);
  std::string reasoning, text, tier;
  ReadReasoning(fields, request, reasoning);
  ReadTextFormat(fields, body, request.chat.params, text);
  constexpr std::string_view kTiers[] = {"auto", "default", "flex", "scale", "priority", "fast", "ultrafast"};
  ReadEnum(fields, "service_tier", kTiers, tier);
  const ToolsEcho tools = ReadResponsesTools(fields, body, request);
  std::string members;
  JsonObject echo(members);
  echo.Bool("background", false).Raw("instructions", TextOrNull(fields, "instructions"));
  AppendOptional(echo, "max_output_tokens", request.chat.params.max_tokens);
  AppendOptional(echo, "max_tool_calls", request.max_tool_calls);
  bool is_parallel = true;
  fields.Read("parallel_tool_calls", is_parallel);
  echo.Bool("parallel_tool_calls", is_parallel)
      .Raw("previous_response_id", TextOrNull(fields, "previous_response_id"))
      .Raw("reasoning", reasoning)
      .Text("service_tier", "default")
      .Bool("store", request.is_stored)
      .Raw("text", text)
      .Raw("tool_choice", tools.tool_choice)
      .Raw("tools", tools.tools)
      .Int("top_logprobs", 0)
      .Text("truncation", "disabled")
      .Float("presence_penalty", request.chat.params.presence_penalty)
      .Float("frequency_penalty", request.chat.params.frequency_penalty)
      .Raw("metadata", ReadMetadata(fields))
      .Raw("safety_identifier", TextOrNull(fields, "safety_identifier"))
      .Raw("prompt_cache_key", TextOrNull(fields, "prompt_cache_key"));
  if (fields.Find("user") != nullptr) echo.Raw("user", TextOrNull(fields, "user"));
  echo.End();
  request.echo = members.substr(1, members.size() - 2);
}

}  // namespace

absl::StatusOr<ResponsesRequest> ParseResponses(std::string_view body, const ItemSource& source) {
  const auto document = ParseBody(body);
  if (!document.ok()) return document.status();
  JsonFields fields(*document);
  ResponsesRequest request;
  ReadFields(fields, body, request);
  std::string instructions;
  fields.Read("instructions", instructions);
  const json* input = fields.Find("input");
  if (input == nullptr) fields.Fail("input", "is required", kMissingParameter);
  if (!fields.status().ok()) return fields.status();

  Conversation& conversation = request.chat.conversation;
  conversation.now = absl::Now();
  if (!instructions.empty()) conversation.messages.push_back({.role = "system", .content = std::move(instructions)});
  InputReader reader(source, request);
  if (!request.previous_response_id.empty()) {
    if (absl::Status status = reader.AddHistory(request.previous_response_id); !status.ok()) return status;
  }
  if (absl::Status status = reader.AddInput(*input); !status.ok()) return status;
  if (conversation.messages.empty()) return ParamError("input", "'input' must not be empty");
  return request;
}

}  // namespace millrace
