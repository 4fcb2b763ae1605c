// SPDX-License-Identifier: Apache-2.0
#pragma once
// One conversation in JSON-RPC with an MCP server over pipes: requests of many threads at once, told apart by their
// ids. Everything is read and written by a thread of its own, which also starts the server and ends it with all of its
// process group. Knows frames and ids; what methods mean is McpServer's.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "agent/cancellation.h"
#include "agent/mcp/json_rpc.h"
#include "agent/sandbox/launch.h"
#include "agent/sandbox/unique_fd.h"

namespace millrace {

// A server that runs. Our ends never block.
struct McpPeer {
  UniqueFd input;           // what we write to
  UniqueFd output;          // what we read
  UniqueFd errors;          // what it says to people; none: -1
  LaunchedProcess process;  // pid 0: none of ours
};

class McpChannel {
 public:
  // Called by the channel's thread, which must be answered soon; may call back nothing of the channel.
  struct Events {
    std::function<void(std::string_view line)> on_error_line;  // a line of `errors`, cut to kMaxErrorLineBytes
    std::function<void(std::string_view what)> on_fault;       // the server broke the protocol; at most kMaxFaults
    std::function<void()> on_tools_changed;                    // notifications/tools/list_changed
  };
  static constexpr size_t kMaxErrorLineBytes = 1000;
  static constexpr int kMaxFaults = 20;

  // `launch` runs on the channel's thread, since a child ends with the thread that started it. What it fails with, or
  // Internal: no thread, no descriptor.
  static absl::StatusOr<std::unique_ptr<McpChannel>> Open(const std::function<absl::StatusOr<McpPeer>()>& launch,
                                                          Events events);
  // Closes the server's input, and ends it where it does not leave by itself within a moment.
  ~McpChannel();

  enum class OnAbandon : uint8_t { kTellServer, kSayNothing };  // a request that nobody waits for any longer
  struct Ask {
    std::string_view method;
    const TemplateValue& params;  // a dict
    absl::Time deadline;
    OnAbandon on_abandon = OnAbandon::kTellServer;
  };
  using Answer = std::variant<RpcResult, RpcFailure>;
  // Blocks until the answer is there. Unavailable: the server has ended. DeadlineExceeded; Cancelled. Any thread.
  absl::StatusOr<Answer> Request(const Ask& ask, const Cancellation& cancellation);
  // Sends a request whose answer nobody wants.
  absl::Status Send(std::string_view method, const TemplateValue& params);
  absl::Status Notify(std::string_view method, const TemplateValue& params);

  // False: every request fails from now on.
  bool is_open() const;

 private:
  class Waiter;
  struct Opened;
  explicit McpChannel(Events events);

  void Work(const std::function<absl::StatusOr<McpPeer>()>& launch, Opened& opened);
  void Converse(McpPeer& peer);
  bool ReadOutput(const McpPeer& peer, LineSplitter& splitter);
  void ReadErrors(McpPeer& peer);
  bool WriteInput(const McpPeer& peer);
  bool Handle(std::string_view line);
  bool HandleRequest(const RpcRequest& request);
  void Fault(std::string_view what);
  void End(McpPeer& peer) const;
  absl::Status Enqueue(const std::string& line) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Wake() const;

  const Events events_;
  const UniqueFd wake_fd_;  // readable: something is to be written, or it is over
  // The channel's thread alone.
  std::string error_line_;
  int num_faults_ = 0;
  mutable absl::Mutex mu_;
  bool is_open_ ABSL_GUARDED_BY(mu_) = false;
  bool is_stopping_ ABSL_GUARDED_BY(mu_) = false;  // its owner is done with it, or the server does not read
  std::string outbox_ ABSL_GUARDED_BY(mu_);
  int64_t last_id_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<int64_t, std::shared_ptr<Waiter>> waiters_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace millrace
