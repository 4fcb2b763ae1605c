// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "absl/time/time.h"
#include "agent/cancellation.h"

namespace millrace {

// What every tool keeps to, whoever calls it.
inline constexpr size_t kMaxToolArgumentsBytes = 64 << 10;
inline constexpr size_t kMaxToolResultBytes = 64 << 10;

// What a model asked for.
struct ToolCall {
  std::string id;         // names the call in the conversation
  std::string name;       // of a tool
  std::string arguments;  // a JSON object, as the model wrote it: nothing is checked yet
};

// What the model reads. A tool's failure is a result too: the model may do better in its next turn.
struct ToolResult {
  bool is_error = false;
  bool is_transient = false;  // the same call may succeed a moment later
  std::string text;           // UTF-8 is not promised; at most kMaxToolResultBytes
};

inline ToolResult ToolError(std::string text) { return {.is_error = true, .text = std::move(text)}; }

// Something a model can call. Call() may run on several threads at once.
class Tool {
 public:
  virtual ~Tool() = default;

  virtual std::string_view name() const = 0;
  virtual std::string_view description() const = 0;  // for the model
  virtual std::string_view parameters() const = 0;   // JSON schema of the arguments
  // Whether calling twice does no more than calling once, so that a failed call may be tried again.
  virtual bool is_idempotent() const { return false; }

  // Blocks until there is a result, the deadline has come or the call is cancelled; the last two are errors. Checks the
  // arguments itself.
  virtual ToolResult Call(std::string_view arguments, absl::Time deadline, const Cancellation& cancellation) = 0;
};

}  // namespace millrace
