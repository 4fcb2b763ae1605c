// SPDX-License-Identifier: Apache-2.0
#include "agent/mcp/launch_peer.h"

#include <fcntl.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "agent/sandbox/launch.h"
#include "agent/sandbox/pipe.h"

namespace millrace {

absl::StatusOr<McpPeer> LaunchMcpPeer(const McpCommand& command) {
  const UniqueFd folder = AboveStandard(UniqueFd(open(command.folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)));
  if (folder.get() < 0)
    return absl::InternalError(absl::StrCat("its folder ", command.folder, ": ", strerrordesc_np(errno)));
  absl::StatusOr<Pipe> input = MakePipe(OurEnd::kWriter);
  if (!input.ok()) return input.status();
  absl::StatusOr<Pipe> output = MakePipe(OurEnd::kReader);
  if (!output.ok()) return output.status();
  absl::StatusOr<Pipe> errors = MakePipe(OurEnd::kReader);
  if (!errors.ok()) return errors.status();
  absl::StatusOr<LaunchedProcess> process = Launch({.tier = LaunchTier::kTrusted,
                                                    .command = command.command,
                                                    .environment = command.environment,
                                                    .stdin_fd = input->reader.get(),
                                                    .stdout_fd = output->writer.get(),
                                                    .stderr_fd = errors->writer.get(),
                                                    .folder_fd = folder.get(),
                                                    .limits = {{RLIMIT_CORE, 0}}});
  if (!process.ok()) return process.status();
  return McpPeer{.input = std::move(input->writer),
                 .output = std::move(output->reader),
                 .errors = std::move(errors->reader),
                 .process = *std::move(process)};
}

}  // namespace millrace
