// SPDX-License-Identifier: Apache-2.0
#pragma once
// What clients ask, free of any wire format: HTTP's JSON and gRPC's messages both become these. Plain data.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/text/conversation.h"
#include "server/auth/budget.h"

namespace millrace {

// What a client allows the response cache (Cache-Control of its request).
struct CacheControl {
  bool may_read = true;    // take an answer from it, or share the generation of one
  bool may_store = true;   // leave the answer there
  bool needs_hit = false;  // nothing else will do: only-if-cached
  absl::Duration max_age = absl::InfiniteDuration();
  // Neither looked up nor kept: what a turn of an agent's run asks for, since tools have effects.
  static CacheControl Bypass() { return {.may_read = false, .may_store = false}; }
};

// Who asks, and how we find it again in the logs.
struct Caller {
  std::string request_id;
  std::string endpoint;  // "chat", "completion", "embedding", "grpc.generate", ...
  std::string remote;
  Tenant tenant;
  std::string key_name;                // of the key that asks; empty: the server has none
  std::shared_ptr<const Quota> quota;  // what that key has left; null: no limits
  absl::Time received;
  absl::Time deadline = absl::InfiniteFuture();
  CacheControl cache;
};

// Sampling and limits as the client gave them; what it left out comes from the model's generation_config.json, then
// from OpenAI's defaults.
struct GenerationParams {
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;  // 0 or -1: off
  float presence_penalty = 0;
  float frequency_penalty = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;
  std::optional<uint64_t> seed;       // choice i draws with seed + i
  int32_t num_choices = 1;            // n
  int32_t best_of = 0;                // 0: num_choices
  std::optional<int32_t> max_tokens;  // without: 16 for completions, what the context leaves for chats
  int32_t min_tokens = 0;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool includes_stop_text = false;
  bool ignores_eos = false;
  bool skips_special_tokens = true;
  int32_t num_logprobs = -1;                // -1: none, 0: the drawn token's own, n: and the n best
  const char* logprobs_param = "logprobs";  // the field that gave their number, to name when it is at fault
  int32_t num_prompt_logprobs = -1;
  bool wants_echo = false;  // completions: the prompt's text comes first
  int32_t priority = 0;
  std::shared_ptr<const Grammar> grammar;  // what the answer may be; null: anything
};

using Prompt = std::variant<std::string, std::vector<int32_t>>;

struct CompletionRequest {
  std::string model;                // empty: the served one
  std::vector<Prompt> prompts;      // at least one
  bool adds_special_tokens = true;  // the tokenizer's own frame (a BOS, say) around text prompts
  GenerationParams params;
};

struct ChatRequest {
  std::string model;
  Conversation conversation;
  bool adds_special_tokens = false;         // templates write their own
  std::vector<std::string> required_tools;  // one of them must be called; empty: the model decides
  bool calls_once = false;                  // at most one call
  std::vector<int32_t> prompt;              // the conversation's tokens, where they are known; empty: rendered
  uint64_t session = 0;                     // of Engine::OpenSession; 0: none
  GenerationParams params;
};

struct EmbeddingRequest {
  std::string model;
  std::vector<Prompt> inputs;
  bool adds_special_tokens = true;
  int32_t priority = 0;
};

// How an answer travels; no matter to the engine.
enum class AnswerMode : uint8_t { kWhole, kStream };
struct StreamChoices {
  AnswerMode mode = AnswerMode::kWhole;
  bool includes_usage = false;        // a last chunk with the token counts
  bool has_continuous_usage = false;  // counts in every chunk
};

}  // namespace millrace
