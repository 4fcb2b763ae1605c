// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <utility>

#include "agent/tool.h"

namespace millrace {

// Tells the date and time, in UTC. Where the time comes from is the giver's choice.
class ClockTool : public Tool {
 public:
  explicit ClockTool(std::function<absl::Time()> now) : now_(std::move(now)) {}

  std::string_view name() const override { return "clock"; }
  std::string_view description() const override { return "Returns today's date, weekday and time (UTC)."; }
  std::string_view parameters() const override {
    return R"({"type":"object","properties":{},"additionalProperties":false})";
  }
  ToolResult Call(std::string_view arguments, absl::Time deadline, const Cancellation& cancellation) override;

 private:
  const std::function<absl::Time()> now_;
};

}  // namespace millrace
