// SPDX-License-Identifier: Apache-2.0
#pragma once
// The YAML file that defines agents. Pure functions, but for ReadAgents, which reads the file.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/run.h"
#include "server/agents/agent.h"
#include "server/agents/tool_set.h"

namespace millrace {

// What the definitions refer to.
struct AgentSurroundings {
  std::vector<std::string> model_names;  // what is served; the first unless an agent says which
  RunLimits limits;                      // of every run: an agent's may be tighter
  const ToolSet* tools = nullptr;        // null: the names of tools are not looked up, and none is bound
};

using AgentList = std::vector<std::shared_ptr<const Agent>>;

// In the file's order. InvalidArgument names path and line: not YAML, an unknown field or one twice, a value out of its
// range, a name that is taken, a tool or a model that is not there, a limit beyond the server's.
absl::StatusOr<AgentList> ParseAgents(std::string_view text, std::string_view path,
                                      const AgentSurroundings& surroundings);
absl::StatusOr<AgentList> ReadAgents(const std::string& path, const AgentSurroundings& surroundings);

}  // namespace millrace
