// SPDX-License-Identifier: Apache-2.0
#pragma once
// The tools that this server runs itself, made from its options. Constant after construction; any thread.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/sandbox/sandbox.h"
#include "agent/tool.h"

namespace millrace {

struct ToolOptions {
  // Of "calculator", "clock", "python", "http_get". The last two reach beyond arithmetic: not unless asked for.
  std::vector<std::string> enabled = {"calculator", "clock"};
  std::vector<std::string> http_get_hosts;  // as EgressPolicy::hosts
  std::string python;                       // its interpreter; empty: found in the usual places
  std::string scratch_folder = "/tmp";      // where programs get their folders
};

class ToolSet {
 public:
  // InvalidArgument: an unknown name, one twice, http_get without hosts. FailedPrecondition: python cannot run here,
  // and why.
  static absl::StatusOr<ToolSet> Create(const ToolOptions& options);

  // Null: there is no such tool.
  std::shared_ptr<Tool> Find(std::string_view name) const;
  const std::vector<std::shared_ptr<Tool>>& all() const { return tools_; }

 private:
  std::vector<std::shared_ptr<Tool>> tools_;
};

// What the options say without trying anything: names, and hosts where they are needed.
absl::Status CheckToolOptions(const ToolOptions& options);

}  // namespace millrace
