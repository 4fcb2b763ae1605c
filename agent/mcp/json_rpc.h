// SPDX-License-Identifier: Apache-2.0
#pragma once
// The messages of JSON-RPC 2.0 as MCP's stdio transport carries them: one JSON object per line. What the other side
// writes is hostile until it was read here. Pure functions, and a splitter of one thread.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/template_value.h"

namespace millrace {

inline constexpr size_t kMaxRpcLineBytes = 8 << 20;

inline constexpr int64_t kRpcMethodNotFound = -32601;
inline constexpr int64_t kMcpUnsupportedVersion = -32022;

// Cuts what is read into lines, whatever its pieces are.
class LineSplitter {
 public:
  explicit LineSplitter(size_t max_line_bytes) : max_line_bytes_(max_line_bytes) {}

  // Appends the lines that `bytes` complete, without their ends. ResourceExhausted: a line is longer than allowed;
  // nothing may be pushed after that. What is held never exceeds one line.
  absl::Status Push(std::string_view bytes, std::vector<std::string>& lines);

 private:
  const size_t max_line_bytes_;
  std::string rest_;  // of the line that has no end yet
};

// The other side asks us.
struct RpcRequest {
  std::string id;  // JSON, to be sent back as it came
  std::string method;
};
struct RpcNotification {
  std::string method;
};
// Answers to a request of ours.
struct RpcResult {
  int64_t id = 0;
  TemplateValue result;
};
struct RpcFailure {
  int64_t id = 0;
  int64_t code = 0;
  std::string message;
  TemplateValue data;  // undefined: none
};
using RpcMessage = std::variant<RpcRequest, RpcNotification, RpcResult, RpcFailure>;

// One line. Bytes that are not UTF-8 are repaired first; of equal keys the last counts. InvalidArgument: not JSON,
// nested or filled beyond measure, or no message of JSON-RPC. Answers to ids that are no integers count as none.
absl::StatusOr<RpcMessage> ParseRpcMessage(std::string_view line);

// Lines to send, with their ends. `params`: a dict. InvalidArgument: it holds what JSON cannot.
absl::StatusOr<std::string> RpcRequestLine(int64_t id, std::string_view method, const TemplateValue& params);
absl::StatusOr<std::string> RpcNotificationLine(std::string_view method, const TemplateValue& params);
// An empty result, or a failure, of the other side's request. `id`: as in RpcRequest.
std::string RpcEmptyResultLine(std::string_view id);
std::string RpcFailureLine(std::string_view id, int64_t code, std::string_view message);

// `value` as compact JSON. InvalidArgument: it holds what JSON cannot, infinity included.
absl::StatusOr<std::string> CompactJson(const TemplateValue& value, bool sorts_keys = false);

}  // namespace millrace
