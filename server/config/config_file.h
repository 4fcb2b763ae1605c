// SPDX-License-Identifier: Apache-2.0
#pragma once
// A YAML file whose keys are the long flags' names: read into flags, each with the line it came from. Pure functions.
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace millrace {

struct ConfigEntry {
  std::string name;                 // as a flag, without the dashes: "max-num-seqs"
  std::vector<std::string> values;  // one for a scalar, several for a list
  int line = 0;                     // 1-based
};

// A map "mcp_servers" becomes "mcp-config" with `path`: McpConfig reads it. InvalidArgument names path and line: not
// YAML, not otherwise a flat map, a key twice.
absl::StatusOr<std::vector<ConfigEntry>> ParseConfig(std::string_view text, const std::string& path);
absl::StatusOr<std::vector<ConfigEntry>> ReadConfigFile(const std::string& path);

// The candidate that was most likely meant, or "" if none is near.
std::string NearestName(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace millrace
