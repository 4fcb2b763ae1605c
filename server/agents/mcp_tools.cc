// SPDX-License-Identifier: Apache-2.0
#include "server/agents/mcp_tools.h"

#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "agent/mcp/launch_peer.h"
#include "agent/mcp/server.h"

namespace millrace {
namespace {

constexpr size_t kMinSecretBytes = 6;  // shorter values stand in many a word

using Started = absl::StatusOr<std::shared_ptr<McpServer>>;

std::string ValueOf(const McpServerOptions& server, std::string_view name) {
  for (const auto& [variable, value] : server.env) {
    if (variable == name) return value;
  }
  return "";
}

// A program as the kernel wants it named.
absl::StatusOr<std::string> FindProgram(const McpServerOptions& server) {
  std::error_code error;
  if (server.command.find('/') != server.command.npos) {
    return std::filesystem::absolute(server.command, error).string();
  }
  const std::string path = ValueOf(server, "PATH");
  for (const absl::string_view folder : absl::StrSplit(path, ':', absl::SkipEmpty())) {
    const std::string candidate = absl::StrCat(folder, "/", server.command);
    if (folder[0] == '/' && access(candidate.c_str(), X_OK) == 0 && !std::filesystem::is_directory(candidate, error)) {
      return candidate;
    }
  }
  return absl::NotFoundError(absl::StrCat("there is no program '", server.command, "' on its PATH"));
}

Started StartOne(const McpServerOptions& server, const ToolServerLog& log) {
  const absl::StatusOr<std::string> program = FindProgram(server);
  if (!program.ok()) return program.status();
  McpCommand command{.command = {*program}, .folder = server.folder};
  command.command.insert(command.command.end(), server.args.begin(), server.args.end());
  for (const auto& [name, value] : server.env) command.environment.push_back(absl::StrCat(name, "=", value));
  McpServerParts parts{.launch = [command = std::move(command)] { return LaunchMcpPeer(command); }};
  if (log) {
    std::vector<std::pair<std::string, std::string>> hidden;
    for (const std::string& secret : server.secrets) {
      if (secret.size() >= kMinSecretBytes) hidden.emplace_back(secret, "[hidden]");
    }
    parts.log = [log, name = server.name, hidden = std::move(hidden)](std::string_view event, std::string_view text) {
      log(name, event, absl::StrReplaceAll({text.data(), text.size()}, hidden));
    };
  }
  return McpServer::Start({.name = server.name,
                           .allowed_tools = server.allowed_tools,
                           .start_time = server.start_time,
                           .tool_time = server.tool_time,
                           .trusts_annotations = server.trusts_annotations},
                          std::move(parts));
}

std::vector<Started> StartAll(const std::vector<McpServerOptions>& servers, const ToolServerLog& log) {
  std::vector<Started> started(servers.size(), absl::UnknownError("not tried"));
  std::vector<std::thread> threads;
  size_t num_begun = 0;
  try {
    for (; num_begun < servers.size(); ++num_begun) {
      threads.emplace_back([&, i = num_begun] { started[i] = StartOne(servers[i], log); });
    }
  } catch (const std::system_error&) {
    // The system gives no more threads: one after the other, then.
  }
  for (size_t i = num_begun; i < servers.size(); ++i) started[i] = StartOne(servers[i], log);
  for (std::thread& thread : threads) thread.join();
  return started;
}

}  // namespace

absl::Status AddMcpTools(const std::vector<McpServerOptions>& servers, const ToolServerLog& log, ToolSet& set) {
  const std::vector<Started> started = StartAll(servers, log);
  for (size_t i = 0; i < servers.size(); ++i) {
    if (!started[i].ok()) {
      const std::string why(started[i].status().message());
      if (servers[i].is_required) {
        return absl::FailedPreconditionError(
            absl::StrCat("the tool server '", servers[i].name, "' did not come up: ", why));
      }
      if (log) log(servers[i].name, "did not come up; its tools are left out", why);
      continue;
    }
    const std::vector<McpToolDefinition>& definitions = (*started[i])->tools();
    std::vector<std::shared_ptr<Tool>> tools = MakeMcpTools(*started[i]);
    for (size_t j = 0; j < tools.size(); ++j) {
      absl::Status added = set.Add({.server = servers[i].name,
                                    .name = definitions[j].name,
                                    .tool = std::move(tools[j]),
                                    .annotations = definitions[j].annotations});
      if (!added.ok()) return added;
    }
  }
  return absl::OkStatus();
}

}  // namespace millrace
