// SPDX-License-Identifier: Apache-2.0
#pragma once
// OpenAI's JSON requests (with vLLM's extensions) to typed requests. Wire JSON ends here. Pure functions, any thread;
// InvalidArgument names the field at fault.
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/pipeline/requests.h"

namespace millrace {

struct ParsedCompletion {
  CompletionRequest request;
  StreamChoices stream;
};

struct ParsedChat {
  ChatRequest request;
  bool forbids_calls = false;  // nor may an agent call tools of its own
  StreamChoices stream;
};

enum class EmbeddingEncoding : uint8_t { kFloat, kBase64 };
struct ParsedEmbedding {
  EmbeddingRequest request;
  EmbeddingEncoding encoding = EmbeddingEncoding::kFloat;
};

// vLLM's /tokenize takes a prompt or a chat.
struct ParsedTokenize {
  std::variant<CompletionRequest, ChatRequest> request;
  bool wants_token_texts = false;
};

struct ParsedDetokenize {
  std::string model;
  std::vector<int32_t> tokens;
};

absl::StatusOr<ParsedCompletion> ParseCompletion(std::string_view body);
absl::StatusOr<ParsedChat> ParseChat(std::string_view body);
absl::StatusOr<ParsedEmbedding> ParseEmbedding(std::string_view body);
absl::StatusOr<ParsedTokenize> ParseTokenize(std::string_view body);
absl::StatusOr<ParsedDetokenize> ParseDetokenize(std::string_view body);

}  // namespace millrace
