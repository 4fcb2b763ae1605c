// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>

#include "agent/sandbox/sandbox.h"
#include "agent/tool.h"

namespace millrace {

struct PythonToolConfig {
  std::string interpreter = "/usr/bin/python3";
  std::string scratch_folder = "/tmp";
  SandboxLimits limits;
};

// Runs a model's Python program in the sandbox: the standard library, an empty folder, no network, no other process.
// What it printed is the result; the last lines of its error are, where it failed.
class PythonTool : public Tool {
 public:
  explicit PythonTool(PythonToolConfig config) : config_(std::move(config)) {}

  std::string_view name() const override { return "python"; }
  std::string_view description() const override {
    return "Runs a Python 3 program and returns what it printed. It has the standard library and an empty folder, but "
           "no network, and keeps nothing for the next call.";
  }
  std::string_view parameters() const override {
    return R"({"type":"object","properties":{"code":{"type":"string","description":"the whole program; print the )"
           R"(result"}},"required":["code"],"additionalProperties":false})";
  }
  ToolResult Call(std::string_view arguments, absl::Time deadline, const Cancellation& cancellation) override;

 private:
  const PythonToolConfig config_;
};

}  // namespace millrace
