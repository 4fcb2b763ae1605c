// SPDX-License-Identifier: Apache-2.0
#pragma once
// The tools that this server runs itself, made from its options. Constant after construction; any thread.
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/sandbox/sandbox.h"
#include "agent/tool.h"
#include "server/config/mcp_config.h"

namespace millrace {

struct ToolOptions {
  // Of "calculator", "clock", "python", "http_get". The last two reach beyond arithmetic: not unless asked for.
  std::vector<std::string> enabled = {"calculator", "clock"};
  std::vector<std::string> http_get_hosts;  // as EgressPolicy::hosts
  std::string python;                       // its interpreter; empty: found in the usual places
  std::string scratch_folder = "/tmp";      // where programs get their folders
  std::vector<McpServerOptions> mcp_servers;
};

// The label of the tools that are built in.
inline constexpr char kOwnToolServer[] = "millrace";

// A tool and what offers it, by whose label and name clients ask for it.
struct ServedTool {
  std::string server;  // kOwnToolServer, or a tool server of the configuration
  std::string name;    // there; Tool::name is another, which no other tool of the set has
  std::shared_ptr<Tool> tool;
  std::string annotations = "null";  // what an MCP server says of it, JSON
};

// What an operator should know of a tool server. Printable, without the secrets of its configuration; any thread.
using ToolServerLog = std::function<void(std::string_view server, std::string_view event, std::string_view text)>;

class ToolSet {
 public:
  // InvalidArgument: an unknown name, one twice, http_get without hosts. FailedPrecondition: python cannot run here, or
  // a tool server that is required does not come up, and why. `log` may be null.
  static absl::StatusOr<ToolSet> Create(const ToolOptions& options, const ToolServerLog& log = nullptr);

  // InvalidArgument: another tool has that name.
  absl::Status Add(ServedTool served);

  // By Tool::name. Null: there is no such tool.
  std::shared_ptr<Tool> Find(std::string_view name) const;
  const ServedTool* FindServed(std::string_view name) const;
  // All of all servers, ours first.
  const std::vector<std::shared_ptr<Tool>>& all() const { return tools_; }
  const std::vector<ServedTool>& served() const { return served_; }

 private:
  std::vector<ServedTool> served_;
  std::vector<std::shared_ptr<Tool>> tools_;  // the same, in the same order
};

// What the options say without trying anything: names, and hosts where they are needed.
absl::Status CheckToolOptions(const ToolOptions& options);

}  // namespace millrace
