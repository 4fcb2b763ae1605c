// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>

#include "agent/egress/broker.h"
#include "agent/tool.h"

namespace millrace {

// Fetches a page for the model, through the broker and under its policy. The model reads the answer's code, type and
// text; an answer that is no success is an error.
class HttpGetTool : public Tool {
 public:
  explicit HttpGetTool(EgressBroker broker) : broker_(std::move(broker)) {}

  std::string_view name() const override { return "http_get"; }
  std::string_view description() const override { return "Fetches a web address and returns what it answers."; }
  std::string_view parameters() const override {
    return R"({"type":"object","properties":{"url":{"type":"string"}},"required":["url"],)"
           R"("additionalProperties":false})";
  }
  bool is_idempotent() const override { return true; }
  ToolResult Call(std::string_view arguments, absl::Time deadline, const Cancellation& cancellation) override;

 private:
  const EgressBroker broker_;
};

}  // namespace millrace
