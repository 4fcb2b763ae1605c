// SPDX-License-Identifier: Apache-2.0
#include "server/api/parse_requests.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "server/api/parse_common.h"

namespace millrace {
namespace {

using nlohmann::json;

void ReadModel(JsonFields& fields, std::string& model) { fields.Read("model", model); }

void ReadChatLogprobs(JsonFields& fields, GenerationParams& params) {
  bool wants_logprobs = false;
  int32_t num_top = 0;
  fields.Read("logprobs", wants_logprobs);
  fields.ReadInt("top_logprobs", 0, 1024, num_top);
  if (num_top > 0 && !wants_logprobs) fields.Fail("top_logprobs", "needs 'logprobs' to be true");
  if (wants_logprobs) params.num_logprobs = num_top;
  params.logprobs_param = "top_logprobs";
}

void ReadChatLimits(JsonFields& fields, GenerationParams& params) {
  if (params.max_tokens == 0) fields.Fail("max_tokens", "must be at least 1");
  fields.ReadInt("max_completion_tokens", 1, 1 << 30, params.max_tokens);
}

}  // namespace

absl::StatusOr<ParsedCompletion> ParseCompletion(std::string_view body) {
  const auto document = ParseBody(body);
  if (!document.ok()) return document.status();
  JsonFields fields(*document);
  ParsedCompletion parsed;
  CompletionRequest& request = parsed.request;
  GenerationParams& params = request.params;
  ReadModel(fields, request.model);
  ReadPrompts(fields, "prompt", request.prompts);
  ReadSampling(fields, params);
  ReadStream(fields, parsed.stream);
  RefuseStreamedPromptLogprobs(fields, request.params, parsed.stream);
  fields.Read("add_special_tokens", request.adds_special_tokens);
  fields.Read("echo", params.wants_echo);
  fields.ReadInt("best_of", 1, 128, params.best_of);
  fields.ReadInt("logprobs", 0, 1024, params.num_logprobs);
  fields.RefuseUnlessNull("suffix");
  ReadResponseFormat(fields, body, params);
  if (params.max_tokens == 0 && !params.wants_echo) fields.Fail("max_tokens", "must be at least 1 without 'echo'");
  if (params.best_of > params.num_choices && parsed.stream.mode == AnswerMode::kStream) {
    fields.Fail("best_of", "cannot be streamed when it is greater than 'n'", kUnsupportedValue);
  }
  if (!fields.status().ok()) return fields.status();
  return parsed;
}

absl::StatusOr<ParsedChat> ParseChat(std::string_view body) {
  const auto document = ParseBody(body);
  if (!document.ok()) return document.status();
  JsonFields fields(*document);
  ParsedChat parsed;
  ChatRequest& request = parsed.request;
  ReadModel(fields, request.model);
  ReadConversation(fields, body, request);
  const json* choice = fields.Find("tool_choice");
  parsed.forbids_calls = choice != nullptr && *choice == "none";
  ReadSampling(fields, request.params);
  ReadChatLimits(fields, request.params);
  ReadChatLogprobs(fields, request.params);
  ReadStream(fields, parsed.stream);
  RefuseStreamedPromptLogprobs(fields, request.params, parsed.stream);
  fields.Read("add_special_tokens", request.adds_special_tokens);
  ReadResponseFormat(fields, body, request.params);
  if (!fields.status().ok()) return fields.status();
  return parsed;
}

absl::StatusOr<ParsedEmbedding> ParseEmbedding(std::string_view body) {
  const auto document = ParseBody(body);
  if (!document.ok()) return document.status();
  JsonFields fields(*document);
  ParsedEmbedding parsed;
  ReadModel(fields, parsed.request.model);
  ReadPrompts(fields, "input", parsed.request.inputs);
  fields.Read("add_special_tokens", parsed.request.adds_special_tokens);
  fields.ReadInt("priority", INT32_MIN, INT32_MAX, parsed.request.priority);
  fields.RefuseUnlessNull("dimensions", "is not supported: the model's own dimension is returned");
  std::string encoding = "float", user;
  fields.Read("encoding_format", encoding);
  fields.Read("user", user);
  if (encoding == "base64") {
    parsed.encoding = EmbeddingEncoding::kBase64;
  } else if (encoding != "float") {
    fields.Fail("encoding_format", "must be 'float' or 'base64'", kUnsupportedValue);
  }
  if (!fields.status().ok()) return fields.status();
  return parsed;
}

absl::StatusOr<ParsedTokenize> ParseTokenize(std::string_view body) {
  const auto document = ParseBody(body);
  if (!document.ok()) return document.status();
  JsonFields fields(*document);
  ParsedTokenize parsed;
  fields.Read("return_token_strs", parsed.wants_token_texts);
  if (fields.Find("messages") != nullptr) {
    ChatRequest request;
    ReadModel(fields, request.model);
    ReadConversation(fields, body, request);
    fields.Read("add_special_tokens", request.adds_special_tokens);
    parsed.request = std::move(request);
  } else {
    CompletionRequest request;
    std::string prompt;
    ReadModel(fields, request.model);
    if (fields.Find("prompt") == nullptr) fields.Fail("prompt", "is required (or 'messages')", kMissingParameter);
    fields.Read("prompt", prompt);
    fields.Read("add_special_tokens", request.adds_special_tokens);
    request.prompts.emplace_back(std::move(prompt));
    parsed.request = std::move(request);
  }
  if (!fields.status().ok()) return fields.status();
  return parsed;
}

absl::StatusOr<ParsedDetokenize> ParseDetokenize(std::string_view body) {
  const auto document = ParseBody(body);
  if (!document.ok()) return document.status();
  JsonFields fields(*document);
  ParsedDetokenize parsed;
  ReadModel(fields, parsed.model);
  if (fields.Find("tokens") == nullptr) fields.Fail("tokens", "is required", kMissingParameter);
  fields.ReadTokenIds("tokens", 4 << 20, parsed.tokens);
  if (!fields.status().ok()) return fields.status();
  return parsed;
}

}  // namespace millrace
