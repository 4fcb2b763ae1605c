// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "absl/status/status.h"
#include "server/agents/tool_set.h"
#include "server/config/mcp_config.h"

namespace millrace {

// Starts the configured servers, all at once, and adds their tools to the set in the order of the configuration.
// FailedPrecondition names a required server that did not come up, and why; others are left out, and the log says so.
// InvalidArgument: two tools would have one name.
absl::Status AddMcpTools(const std::vector<McpServerOptions>& servers, const ToolServerLog& log, ToolSet& set);

}  // namespace millrace
