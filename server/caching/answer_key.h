// SPDX-License-Identifier: Apache-2.0
#pragma once
// The name under which the response cache keeps an answer: everything that decides the deltas of a generation, and
// nothing that does not (who is served first, how it is sent). Pure functions.
#include <span>
#include <string>
#include <vector>

#include "cache/cache_key.h"
#include "server/pipeline/requests.h"

namespace millrace {

enum class AnswerKind : uint8_t { kCompletion, kChat };

struct AnswerQuestion {
  AnswerKind kind = AnswerKind::kCompletion;
  const std::vector<std::vector<int32_t>>& prompts;
  const GenerationParams& params;
  std::span<const std::string> required_tools = {};
  bool calls_once = false;
  std::string_view tools = {};  // as JSON: calls are held to their schemas
};

// The name the model is served by, and the digest of what it is (server/model_identity.h).
struct ServedModel {
  std::string name;
  Digest identity{};
};

CacheKey MakeAnswerKey(const ServedModel& model, const Tenant& tenant, const AnswerQuestion& question);

}  // namespace millrace
