// SPDX-License-Identifier: Apache-2.0
#include "server/agents/agent.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

template <typename Value>
void SetDefault(const std::optional<Value>& value, std::optional<Value>& out) {
  if (!out) out = value;
}

// Most templates know one system message, at the beginning: the client's is put behind the agent's.
void PutBefore(const std::string& instructions, std::vector<ChatMessage>& messages) {
  const bool has_system =
      !messages.empty() && (messages.front().role == "system" || messages.front().role == "developer");
  if (!has_system) {
    messages.insert(messages.begin(), {.role = "system", .content = instructions});
    return;
  }
  messages.front().role = "system";
  ChatContent& content = messages.front().content;
  if (auto* parts = std::get_if<std::vector<ContentPart>>(&content)) {
    parts->insert(parts->begin(), {.text = instructions + "\n\n"});
    return;
  }
  const auto* text = std::get_if<std::string>(&content);
  content = text == nullptr || text->empty() ? instructions : absl::StrCat(instructions, "\n\n", *text);
}

}  // namespace

bool Agent::Allows(const Tenant& tenant) const {
  const std::string& asking = tenant.name.empty() ? "anonymous" : tenant.name;
  return tenants.empty() || std::find(tenants.begin(), tenants.end(), asking) != tenants.end();
}

void ApplyAgent(const Agent& agent, ChatRequest& request) {
  if (!agent.instructions.empty()) PutBefore(agent.instructions, request.conversation.messages);
  GenerationParams& params = request.params;
  SetDefault(agent.temperature, params.temperature);
  SetDefault(agent.top_p, params.top_p);
  SetDefault(agent.min_p, params.min_p);
  SetDefault(agent.repetition_penalty, params.repetition_penalty);
  SetDefault(agent.top_k, params.top_k);
  SetDefault(agent.seed, params.seed);
}

RunLimits LimitsOf(const Agent& agent, absl::Time now) {
  RunLimits limits = agent.limits;
  limits.deadline = now + agent.time;
  return limits;
}

int64_t TighterLimit(int64_t one, int64_t other) {
  if (one == 0 || other == 0) return std::max(one, other);
  return std::min(one, other);
}

}  // namespace millrace
