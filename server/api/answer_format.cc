// SPDX-License-Identifier: Apache-2.0
#include "server/api/answer_format.h"

#include "server/wire/json_writer.h"

namespace millrace {

void AppendUsage(const Usage& usage, std::string& out) {
  out += R"({"prompt_tokens":)";
  AppendJsonInt(usage.num_prompt_tokens, out);
  out += R"(,"completion_tokens":)";
  AppendJsonInt(usage.num_completion_tokens, out);
  out += R"(,"total_tokens":)";
  AppendJsonInt(usage.num_prompt_tokens + usage.num_completion_tokens, out);
  out += R"(,"prompt_tokens_details":{"cached_tokens":)";
  AppendJsonInt(usage.num_cached_tokens, out);
  out += '}';
  if (usage.cache == CacheOutcome::kHit || usage.cache == CacheOutcome::kCoalesced) {
    out += R"(,"millrace_cache":)";
    AppendJsonString(CacheOutcomeName(usage.cache), out);
  }
  out += '}';
}

void AppendFinish(FinishReason finish, const StopReason& reason, std::string& out) {
  out += R"("finish_reason":)";
  AppendJsonStringOrNull(FinishReasonName(finish), out);
  if (finish == FinishReason::kNone) return;
  out += R"(,"stop_reason":)";
  if (const auto* text = std::get_if<std::string>(&reason)) {
    AppendJsonString(*text, out);
  } else if (const auto* token = std::get_if<int32_t>(&reason)) {
    AppendJsonInt(*token, out);
  } else {
    out += "null";
  }
}

void AppendHead(const AnswerHead& head, const char* object, std::string& out) {
  out += R"({"id":)";
  AppendJsonString(head.id, out);
  out += R"(,"object":")";
  out += object;
  out += R"(","created":)";
  AppendJsonInt(head.created, out);
  out += R"(,"model":)";
  AppendJsonString(head.model, out);
  out += R"(,"system_fingerprint":null,"choices":[)";
}

void AppendPromptLogprobs(const std::vector<TokenText>& logprobs, std::string& out) {
  out += "[null";  // the first token has none
  const auto append = [&out](const TokenText& token, bool is_first) {
    if (!is_first) out += ',';
    out += '"';
    AppendJsonInt(token.token, out);
    out += R"(":{"logprob":)";
    AppendJsonFloat(token.logprob, out);
    out += R"(,"rank":)";
    AppendJsonInt(token.rank, out);
    out += R"(,"decoded_token":)";
    AppendJsonString(token.bytes, out);
    out += '}';
  };
  for (const TokenText& token : logprobs) {
    out += ",{";
    append(token, true);
    for (const TokenText& top : token.top) {
      if (top.token != token.token) append(top, false);
    }
    out += '}';
  }
  out += ']';
}

}  // namespace millrace
