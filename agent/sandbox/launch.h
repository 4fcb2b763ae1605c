// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/filter.h>
#include <sys/resource.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/sandbox/unique_fd.h"

namespace millrace {

inline constexpr uid_t kSandboxUid = 65534;  // "nobody", also the group

// Whether this process may give a child and its folder to kSandboxUid, and end it afterwards.
bool CanChangeUser();

enum class LaunchTier : uint8_t {
  kSandboxed,  // a program that nobody trusts
  kTrusted,    // one that the operator named: neither Landlock nor seccomp, and the capabilities stay
};

// Everything a child needs, made ready by the parent: between clone and exec nothing may allocate or lock.
struct LaunchPlan {
  LaunchTier tier = LaunchTier::kSandboxed;
  std::vector<std::string> command;      // the first is an absolute path
  std::vector<std::string> environment;  // NAME=value
  int stdin_fd = -1;                     // descriptors of the parent
  int stdout_fd = -1;
  int stderr_fd = -1;
  int folder_fd = -1;   // where it starts
  int ruleset_fd = -1;  // Landlock's; of the sandboxed alone, as the next
  std::vector<sock_filter> filter;
  std::vector<std::pair<int, rlim_t>> limits;  // RLIMIT_*, for both soft and hard
  bool changes_user = false;                   // to kSandboxUid
};

struct LaunchedProcess {
  pid_t pid = 0;  // also its session and process group
  UniqueFd pidfd;
};

// Starts the program with all its fetters, or not at all: Internal with the step that failed. The calling thread's end
// ends the child too. REQUIRES: the thread waits for the child.
absl::StatusOr<LaunchedProcess> Launch(const LaunchPlan& plan);

}  // namespace millrace
