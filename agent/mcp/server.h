// SPDX-License-Identifier: Apache-2.0
#pragma once
// One MCP server of the configuration and the tools it offers. One that has ended is started again by the next call,
// with pauses that grow. What its tools are is settled at the start: a tool that is described otherwise later is
// refused until we are started again, since nobody has agreed to that one. Thread-safe.
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "agent/mcp/session.h"
#include "agent/mcp/tool_definition.h"
#include "agent/tool.h"

namespace millrace {

struct McpServerConfig {
  std::string name;
  std::optional<std::vector<std::string>> allowed_tools;  // by their names there; without: all
  absl::Duration start_time = absl::Seconds(30);          // from its launch to its list of tools
  absl::Duration tool_time = absl::InfiniteDuration();    // of a call, where the run's own limit is not shorter
  // Its word that a tool may be called twice is believed: calls that failed are tried again.
  bool trusts_annotations = false;
};

// The event of a line that a server wrote for people.
inline constexpr std::string_view kToolServerSays = "says";

struct McpServerParts {
  std::function<absl::StatusOr<McpPeer>()> launch;  // see McpChannel::Open
  // What an operator should know; `text` is printable and bounded. May be null; any thread.
  std::function<void(std::string_view event, std::string_view text)> log;
  std::function<absl::Time()> now = [] { return absl::Now(); };  // of the pauses between starts
};

class McpServer {
 public:
  // Starts it and asks for its tools. What McpSession::Open and ListTools fail with; FailedPrecondition, too: two tools
  // of one name, or an allowed one that is not there.
  static absl::StatusOr<std::shared_ptr<McpServer>> Start(McpServerConfig config, McpServerParts parts);

  const McpServerConfig& config() const { return config_; }
  const std::vector<McpToolDefinition>& tools() const { return tools_; }

  // `tool`: one of tools(). As Tool::Call.
  ToolResult Call(const McpToolDefinition& tool, std::string_view arguments, absl::Time deadline,
                  const Cancellation& cancellation);

 private:
  using Patience = McpSession::Patience;
  // One run of the server.
  struct Incarnation {
    std::atomic<int> num_changes{0};        // of its list, that it told
    std::atomic<int> num_compared{0};       // of these, that were looked at
    std::atomic<bool> has_answered{false};  // a call: it is not broken from the start
    std::unique_ptr<McpSession> session;
  };

  McpServer(McpServerConfig config, McpServerParts parts) : config_(std::move(config)), parts_(std::move(parts)) {}

  absl::StatusOr<std::shared_ptr<Incarnation>> Connect(const Patience& patience) const;
  absl::Status SettleTools(McpSession::ToolList list);
  absl::Status CompareTools(McpSession& session, const Patience& patience);

  absl::StatusOr<std::shared_ptr<Incarnation>> Ready(const Patience& patience);
  absl::StatusOr<std::shared_ptr<Incarnation>> Restart(const Patience& patience);
  bool IsRefused(const McpToolDefinition& tool);
  void Tell(std::string_view event, std::string_view text) const;

  const McpServerConfig config_;
  const McpServerParts parts_;
  std::vector<McpToolDefinition> tools_;  // constant once Start is over
  absl::Mutex mu_;
  std::shared_ptr<Incarnation> current_ ABSL_GUARDED_BY(mu_);
  bool is_starting_ ABSL_GUARDED_BY(mu_) = false;
  int num_failures_ ABSL_GUARDED_BY(mu_) = 0;  // runs on end that answered no call
  absl::Time next_start_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  std::set<std::string, std::less<>> refused_ ABSL_GUARDED_BY(mu_);  // tools that changed
};

// The server's tools as a model can call them: named McpToolName(server, tool), in the order of tools(). They keep the
// server.
std::vector<std::shared_ptr<Tool>> MakeMcpTools(const std::shared_ptr<McpServer>& server);

}  // namespace millrace
