// SPDX-License-Identifier: Apache-2.0
#pragma once
// Which tool servers (MCP) there are: the "mcpServers" that other programs keep in a JSON file, with a few fields of
// our own, or the same in YAML. Pure functions, but for ReadMcpConfig.
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace millrace {

// The value of a variable of our environment; null: it is not set.
using Environment = std::function<const char*(const char* name)>;

struct McpServerOptions {
  std::string name;     // [A-Za-z0-9_-], at most 32 bytes
  std::string command;  // a path, or a name on PATH
  std::vector<std::string> args;
  std::vector<std::pair<std::string, std::string>> env;  // all that its process gets
  std::vector<std::string> secrets;                      // values that must not be logged
  std::string folder = ".";
  std::optional<std::vector<std::string>> allowed_tools;  // without: all
  absl::Duration start_time = absl::Seconds(30);
  absl::Duration tool_time = absl::InfiniteDuration();
  bool is_required = true;  // else the server serves without it where it does not come up
  bool trusts_annotations = false;
};

// `text`: a map with "mcpServers" or "mcp_servers", JSON or YAML; other keys are passed over. ${NAME} and
// ${NAME:-default} in command, args and env stand for our environment. InvalidArgument names path and line: not such a
// map, an unknown field, a variable that is not set, a transport other than stdio.
absl::StatusOr<std::vector<McpServerOptions>> ParseMcpConfig(std::string_view text, const std::string& path,
                                                             const Environment& environment);
// All of the files; no two servers may have one name. NotFound: a file cannot be read.
absl::StatusOr<std::vector<McpServerOptions>> ReadMcpConfig(const std::vector<std::string>& paths,
                                                            const Environment& environment);

}  // namespace millrace
