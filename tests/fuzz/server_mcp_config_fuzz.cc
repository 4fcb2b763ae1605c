// SPDX-License-Identifier: Apache-2.0
// A file of tool servers: each has a name and a command, or the fault says where it is.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "server/config/mcp_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  using namespace millrace;
  const std::string_view text(reinterpret_cast<const char*>(data), num_bytes);
  const auto servers = ParseMcpConfig(
      text, "mcp.json", [](const char* name) -> const char* { return name[0] == 'P' ? "/usr/bin" : nullptr; });
  if (!servers.ok()) {
    if (servers.status().message().find("mcp.json:") != 0) std::abort();
    return 0;
  }
  for (const McpServerOptions& server : *servers) {
    if (server.name.empty() || server.name.size() > 32 || server.command.empty()) std::abort();
    if (!(server.start_time > absl::ZeroDuration())) std::abort();
  }
  return 0;
}
