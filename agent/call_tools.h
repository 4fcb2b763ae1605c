// SPDX-License-Identifier: Apache-2.0
#pragma once
// Runs the calls of one turn: at the same time as far as allowed, each within its time, each with a result whatever
// happens. Pure of the run's state; any thread.
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "agent/cancellation.h"
#include "agent/tool.h"

namespace millrace {

struct CallToolsOptions {
  int max_parallel = 1;
  int max_attempts = 1;  // of an idempotent tool whose failure may pass
  absl::Duration tool_time;
  absl::Duration first_retry_pause;
  absl::Time deadline;  // of all
  std::function<absl::Time()> now;
};

struct ToolOutcome {
  ToolResult result;  // its text is valid UTF-8 of at most kMaxToolResultBytes
  absl::Duration duration;
};

// The results, in the order of the calls. A name that none of `tools` has, and arguments that do not fit the tool's
// schema, are results too. Blocks; one call runs on the caller's thread, more on threads that end before it returns.
std::vector<ToolOutcome> CallTools(const std::vector<std::shared_ptr<Tool>>& tools, const std::vector<ToolCall>& calls,
                                   const CallToolsOptions& options, const Cancellation& cancellation);

// The tool of that name; null: none.
Tool* FindTool(const std::vector<std::shared_ptr<Tool>>& tools, std::string_view name);

}  // namespace millrace
