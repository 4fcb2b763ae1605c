// SPDX-License-Identifier: Apache-2.0
#pragma once
// A server that runs and has said which version of the protocol it speaks: 2026-07-28, in which every request says who
// asks, or one with the handshake of 2025-11-25 and before. Thread-safe once it is open.
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/cancellation.h"
#include "agent/mcp/channel.h"
#include "agent/mcp/tool_definition.h"

namespace millrace {

class McpSession {
 public:
  // How long something may take, and who may stop it.
  struct Patience {
    absl::Time deadline;
    const Cancellation& cancellation;
  };

  // Starts the server, once more where it leaves at the first word, and agrees on a version. What McpChannel::Open or
  // Request fail with; FailedPrecondition: there is no version that both know, or it refuses the handshake.
  static absl::StatusOr<std::unique_ptr<McpSession>> Open(const std::function<absl::StatusOr<McpPeer>()>& launch,
                                                          const McpChannel::Events& events, const Patience& patience);

  // As McpChannel::Request. `params`: a dict.
  absl::StatusOr<McpChannel::Answer> Ask(std::string_view method, TemplateValue params, const Patience& patience);

  struct ToolList {
    std::vector<McpToolDefinition> tools;
    std::vector<std::string> left_out;
  };
  // All pages of tools/list. FailedPrecondition: the server refuses, or lists beyond every measure.
  absl::StatusOr<ToolList> ListTools(const Patience& patience);

  bool is_open() const { return channel_->is_open(); }

 private:
  enum class Era : uint8_t { kHandshake, kStateless };
  McpSession(std::unique_ptr<McpChannel> channel, Era era) : channel_(std::move(channel)), era_(era) {}

  absl::Status Negotiate(const Patience& patience);
  absl::StatusOr<bool> Discover(const Patience& patience);
  absl::Status Initialize(const Patience& patience);
  void AskForChanges();

  const std::unique_ptr<McpChannel> channel_;
  Era era_;  // settled by Open
};

}  // namespace millrace
