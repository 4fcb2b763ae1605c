// SPDX-License-Identifier: Apache-2.0
#include "agent/tools/clock.h"

#include "agent/tool_arguments.h"

namespace millrace {

ToolResult ClockTool::Call(std::string_view arguments, absl::Time, const Cancellation&) {
  const absl::StatusOr<ToolArguments> parsed = ParseStringArguments(arguments, {});
  if (!parsed.ok()) return ToolError(std::string(parsed.status().message()));
  return {.text = absl::FormatTime("%Y-%m-%dT%H:%M:%SZ (%A)", now_(), absl::UTCTimeZone())};
}

}  // namespace millrace
