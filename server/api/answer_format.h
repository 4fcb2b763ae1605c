// SPDX-License-Identifier: Apache-2.0
#pragma once
// How an answer looks on the wire: OpenAI's chat and completion objects, whole or in chunks. Pure text building; an
// AnswerFormat belongs to one request and is used by one thread at a time.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/text/answer_parser.h"
#include "server/pipeline/generation.h"

namespace millrace {

struct Usage {
  int64_t num_prompt_tokens = 0;
  int64_t num_completion_tokens = 0;
  int64_t num_cached_tokens = 0;
  CacheOutcome cache = CacheOutcome::kNone;  // shown where nothing was computed: kHit, kCoalesced
};

// One choice as collected so far.
struct CollectedChoice {
  std::string text;
  std::vector<TokenText> logprobs;
  std::vector<TokenText> prompt_logprobs;
  std::vector<float> embedding;
  int32_t num_tokens = 0;
  double sum_logprob = 0;
  FinishReason finish = FinishReason::kNone;
  StopReason stop_reason;
};

struct AnswerHead {
  std::string id;  // "chatcmpl-..." or "cmpl-..."
  std::string model;
  int64_t created = 0;  // Unix seconds
};

class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;
  // The chunks (JSON, without "data: ") for one delta; `is_first` of its choice; `usage` null unless wanted in each.
  virtual std::vector<std::string> Chunks(const TextDelta& delta, bool is_first, const Usage* usage) = 0;
  // The last chunk of a stream that asked for usage.
  virtual std::string UsageChunk(const Usage& usage) = 0;
  virtual std::string Whole(const std::vector<CollectedChoice>& choices, const Usage& usage) = 0;
};

struct ChatFormatOptions {
  AnswerParserOptions parser;
  bool has_logprobs = false;
  int32_t num_top_logprobs = 0;
  bool has_usage_field = false;  // chunks carry "usage": null
};
std::unique_ptr<AnswerFormat> MakeChatFormat(AnswerHead head, const ChatFormatOptions& options);

struct CompletionFormatOptions {
  bool has_logprobs = false;
  int32_t num_top_logprobs = 0;
  bool has_usage_field = false;
  // Echo: per prompt, its text and its tokens' texts; empty without echo.
  struct Echo {
    std::string text;
    std::vector<TokenText> tokens;  // bytes only
  };
  std::vector<Echo> echoes;
  int32_t num_choices_per_prompt = 1;
  bool shows_prompt_logprobs = false;  // vLLM's field, asked for by the client
};
std::unique_ptr<AnswerFormat> MakeCompletionFormat(AnswerHead head, const CompletionFormatOptions& options);

// Parts that both use.
void AppendUsage(const Usage& usage, std::string& out);
void AppendFinish(FinishReason finish, const StopReason& reason, std::string& out);   // finish_reason, stop_reason
void AppendHead(const AnswerHead& head, const char* object, std::string& out);        // {"id":...,"choices":[
void AppendPromptLogprobs(const std::vector<TokenText>& logprobs, std::string& out);  // vLLM's list of objects

}  // namespace millrace
