// SPDX-License-Identifier: Apache-2.0
// A file of agents: whatever is in it, a fault names path and line, and an agent that is taken can be named in a path,
// has text that is UTF-8, and limits within those of the server.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string_view>

#include "absl/strings/match.h"
#include "engine/text/utf8.h"
#include "server/agents/agent_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  using namespace millrace;
  static const ToolSet tools = *ToolSet::Create({});
  const RunLimits most{.max_turns = 5, .max_tool_calls = 7, .max_total_tokens = 1000};
  const auto agents = ParseAgents({reinterpret_cast<const char*>(data), num_bytes}, "agents",
                                  {.model_names = {"model", "alias"}, .limits = most, .tools = &tools});
  if (!agents.ok()) {
    if (!absl::StartsWith(agents.status().message(), "agents:")) std::abort();
    return 0;
  }
  std::set<std::string> names = {"model", "alias", "", ".", ".."};
  for (const auto& agent : *agents) {
    if (!names.insert(agent->name).second || agent->name.find_first_of("/ \"\\?#%\n") != std::string::npos)
      std::abort();
    if (!IsValidUtf8(agent->description) || !IsValidUtf8(agent->instructions)) std::abort();
    const RunLimits& limits = agent->limits;
    if (limits.max_turns < 1 || limits.max_turns > most.max_turns) std::abort();
    if (limits.max_tool_calls < 0 || limits.max_tool_calls > most.max_tool_calls) std::abort();
    if (limits.max_total_tokens < 1 || limits.max_total_tokens > most.max_total_tokens) std::abort();
    if (limits.max_output_tokens < 0 || limits.tool_time <= absl::ZeroDuration()) std::abort();
    if (agent->time <= absl::ZeroDuration()) std::abort();
    ChatRequest request;
    ApplyAgent(*agent, request);
  }
  return 0;
}
