// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/inference_messages.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/grpc/chat_messages.h"
#include "server/wire/api_error.h"

namespace millrace {
namespace {

constexpr int kMaxStops = 16;
constexpr size_t kMaxStopBytes = 1024;
constexpr int kMaxStopTokens = 256;
constexpr int kMaxBiases = 1024;
constexpr int kMaxInputs = 2048;
constexpr int32_t kMaxTokens = 1 << 30;
constexpr int32_t kMaxChoices = 128;
constexpr int32_t kMaxLogprobs = 1024;

absl::Status CheckRange(const char* name, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();  // false for not-a-number
  return ParamError(name, absl::StrCat(name, " must be from ", low, " to ", high, ", not ", value));
}

absl::Status CheckAbove(const char* name, double value, double low, double high) {
  if (value > low && value <= high) return absl::OkStatus();
  return ParamError(name, absl::StrCat(name, " must be above ", low, " and at most ", high, ", not ", value));
}

absl::Status CheckStops(const GenerationParams& params) {
  if (params.stop.size() > kMaxStops) return ParamError("stop", absl::StrCat("at most ", kMaxStops, " stop strings"));
  for (const std::string& stop : params.stop) {
    if (stop.empty()) return ParamError("stop", "a stop string must not be empty");
    if (stop.size() > kMaxStopBytes) {
      return ParamError("stop", absl::StrCat("a stop string is at most ", kMaxStopBytes, " bytes long"));
    }
  }
  if (params.stop_token_ids.size() > kMaxStopTokens) {
    return ParamError("stop_token_ids", absl::StrCat("at most ", kMaxStopTokens, " stop tokens"));
  }
  return absl::OkStatus();
}

// The first fault of several checks.
absl::Status FirstError(std::initializer_list<absl::Status> checks) {
  for (const absl::Status& status : checks) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

GenerationParams ReadSampling(const v1::SamplingParams& message) {
  GenerationParams params;
  if (message.has_temperature()) params.temperature = message.temperature();
  if (message.has_top_p()) params.top_p = message.top_p();
  if (message.has_top_k()) params.top_k = message.top_k();
  if (message.has_min_p()) params.min_p = message.min_p();
  if (message.has_repetition_penalty()) params.repetition_penalty = message.repetition_penalty();
  params.presence_penalty = message.presence_penalty();
  params.frequency_penalty = message.frequency_penalty();
  params.logit_bias.assign(message.logit_bias().begin(), message.logit_bias().end());
  if (message.has_seed()) params.seed = message.seed();
  params.num_choices = message.n() == 0 ? 1 : message.n();
  if (message.has_max_tokens()) params.max_tokens = message.max_tokens();
  params.min_tokens = message.min_tokens();
  params.stop.assign(message.stop().begin(), message.stop().end());
  params.stop_token_ids.assign(message.stop_token_ids().begin(), message.stop_token_ids().end());
  params.includes_stop_text = message.include_stop_str_in_output();
  params.ignores_eos = message.ignore_eos();
  if (message.has_skip_special_tokens()) params.skips_special_tokens = message.skip_special_tokens();
  if (message.has_logprobs()) params.num_logprobs = message.logprobs();
  if (message.has_prompt_logprobs()) params.num_prompt_logprobs = message.prompt_logprobs();
  params.priority = message.priority();
  return params;
}

void ToMessage(const TokenText& token, v1::TokenLogprob* message) {
  message->set_token_id(token.token);
  message->set_token(token.bytes);
  message->set_logprob(token.logprob);
  message->set_rank(token.rank);
  for (const TokenText& top : token.top) ToMessage(top, message->add_top());
}

v1::FinishReason ToMessage(FinishReason finish) {
  switch (finish) {
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    default:
      return v1::FINISH_REASON_UNSPECIFIED;
  }
}

// The fields that both streams have under the same names.
template <typename Response>
void FillCommon(const TextDelta& delta, Response* message) {
  message->set_choice(delta.choice);
  message->mutable_token_ids()->Assign(delta.tokens.begin(), delta.tokens.end());
  for (const TokenText& token : delta.logprobs) ToMessage(token, message->add_logprobs());
  for (const TokenText& token : delta.prompt_logprobs) ToMessage(token, message->add_prompt_logprobs());
  message->set_finish_reason(ToMessage(delta.finish));
  if (const auto* text = std::get_if<std::string>(&delta.stop_reason)) message->set_stop_string(*text);
  if (const auto* token = std::get_if<int32_t>(&delta.stop_reason)) message->set_stop_token_id(*token);
}

}  // namespace

absl::Status CheckParams(const GenerationParams& params) {
  if (absl::Status status = CheckStops(params); !status.ok()) return status;
  if (params.logit_bias.size() > kMaxBiases) {
    return ParamError("logit_bias", absl::StrCat("at most ", kMaxBiases, " tokens"));
  }
  for (const auto& [token, bias] : params.logit_bias) {
    if (absl::Status status = CheckRange("logit_bias", bias, -100, 100); !status.ok()) return status;
  }
  return FirstError({
      CheckRange("temperature", params.temperature.value_or(1), 0, 2),
      CheckAbove("top_p", params.top_p.value_or(1), 0, 1),
      CheckRange("top_k", params.top_k.value_or(0), -1, INT32_MAX),
      CheckRange("min_p", params.min_p.value_or(0), 0, 1),
      CheckAbove("repetition_penalty", params.repetition_penalty.value_or(1), 0, 2),
      CheckRange("presence_penalty", params.presence_penalty, -2, 2),
      CheckRange("frequency_penalty", params.frequency_penalty, -2, 2),
      CheckRange("n", params.num_choices, 1, kMaxChoices),
      CheckRange("max_tokens", params.max_tokens.value_or(1), 1, kMaxTokens),
      CheckRange("min_tokens", params.min_tokens, 0, kMaxTokens),
      CheckRange("logprobs", params.num_logprobs, -1, kMaxLogprobs),
      CheckRange("prompt_logprobs", params.num_prompt_logprobs, -1, kMaxLogprobs),
  });
}

absl::StatusOr<CompletionRequest> FromMessage(const v1::GenerateRequest& message) {
  CompletionRequest request;
  request.model = message.model();
  switch (message.prompt_case()) {
    case v1::GenerateRequest::kText:
      request.prompts.emplace_back(message.text());
      break;
    case v1::GenerateRequest::kTokenIds: {
      const auto& ids = message.token_ids().ids();
      request.prompts.emplace_back(std::vector<int32_t>(ids.begin(), ids.end()));
      break;
    }
    case v1::GenerateRequest::PROMPT_NOT_SET:
      return ParamError("prompt", "text or token_ids is required", kMissingParameter);
  }
  if (message.has_add_special_tokens()) request.adds_special_tokens = message.add_special_tokens();
  request.params = ReadSampling(message.sampling());
  if (absl::Status status = CheckParams(request.params); !status.ok()) return status;
  return request;
}

absl::StatusOr<EmbeddingRequest> FromMessage(const v1::EmbedRequest& message) {
  EmbeddingRequest request;
  request.model = message.model();
  request.priority = message.priority();
  if (message.inputs().empty()) return ParamError("inputs", "at least one input is required", kMissingParameter);
  if (message.inputs_size() > kMaxInputs) return ParamError("inputs", absl::StrCat("at most ", kMaxInputs, " inputs"));
  for (const auto& input : message.inputs()) {
    switch (input.input_case()) {
      case v1::EmbedRequest::Input::kText:
        request.inputs.emplace_back(input.text());
        break;
      case v1::EmbedRequest::Input::kTokenIds: {
        const auto& ids = input.token_ids().ids();
        request.inputs.emplace_back(std::vector<int32_t>(ids.begin(), ids.end()));
        break;
      }
      case v1::EmbedRequest::Input::INPUT_NOT_SET:
        return ParamError("inputs", "each input needs text or token_ids", kMissingParameter);
    }
  }
  return request;
}

absl::StatusOr<ChatRequest> FromMessage(const v1::ChatRequest& message) {
  auto conversation = ReadConversation(message.messages(), message.tools(), message.template_variables());
  if (!conversation.ok()) return conversation.status();
  ChatRequest request;
  request.model = message.model();
  request.conversation = *std::move(conversation);
  request.params = ReadSampling(message.sampling());
  if (absl::Status status = CheckParams(request.params); !status.ok()) return status;
  request.calls_once = message.has_parallel_tool_calls() && !message.parallel_tool_calls();
  std::vector<std::string> names;
  for (const v1::Tool& tool : message.tools()) names.push_back(tool.name());
  if (absl::Status status = ReadToolChoice(message.tool_choice(), std::move(names), request); !status.ok()) {
    return status;
  }
  return request;
}

absl::StatusOr<ChatRequest> FromMessage(const v1::TokenizeRequest& message) {
  auto conversation = ReadConversation(message.messages(), message.tools(), /*template_variables=*/"");
  if (!conversation.ok()) return conversation.status();
  ChatRequest request;
  request.model = message.model();
  request.conversation = *std::move(conversation);
  return request;
}

void ToMessage(const TextDelta& delta, v1::GenerateResponse* message) {
  message->set_text(delta.text);
  FillCommon(delta, message);
}

void ToMessage(const TextDelta& delta, v1::ChatResponse* message) {
  message->set_content(delta.text);
  FillCommon(delta, message);
}

void ToMessage(const GenerationTotals& totals, v1::Usage* message) {
  message->set_prompt_tokens(totals.num_prompt_tokens);
  message->set_completion_tokens(totals.num_completion_tokens);
  message->set_cached_tokens(totals.num_cached_tokens);
}

}  // namespace millrace
