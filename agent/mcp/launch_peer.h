// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/mcp/channel.h"

namespace millrace {

struct McpCommand {
  std::vector<std::string> command;      // the first is an absolute path
  std::vector<std::string> environment;  // NAME=value: all there is
  std::string folder = ".";              // where it starts
};

// Starts the program as the operator's own: our user and files, a session and process group of its own, no descriptors
// but its three, no new privileges. The calling thread's end ends it. Internal: the step that failed. REQUIRES: the
// caller ends and reaps it.
absl::StatusOr<McpPeer> LaunchMcpPeer(const McpCommand& command);

}  // namespace millrace
