// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "agent/sandbox/sandbox.h"

namespace millrace {

// Who runs the sandbox: whoever runs the tests, one without any privilege, as in an ordinary pod, or root whose
// capabilities were taken, as in a pod that drops them but not the user.
enum class Who { kCaller, kNobody, kBareRoot };

// Runs `body` in a child process as `who` and returns its text; "" where it died. In the child nothing may be asserted.
std::string InProcessOf(Who who, const std::function<std::string()>& body);

// False, visibly, where this machine cannot hold a program, or may not become `who`.
bool CanRun(Who who);

// The attack program, where everyone can execute it.
const std::string& AttackProgram();

// A folder in /tmp, removed with all that is in it.
class TestFolder {
 public:
  TestFolder();
  ~TestFolder();
  const std::string& path() const { return path_; }
  bool IsEmpty() const;

 private:
  std::string path_;
};

// One attack in the sandbox: its first line of output where it ended by itself, else how it was ended. Adds what is
// wrong afterwards: a process or a file that is left.
std::string RunAttack(const std::vector<std::string>& attack, const SandboxLimits& limits = {},
                      absl::Duration limit = absl::Seconds(60));

// The same attack without a sandbox.
std::string RunAttackFreely(const std::vector<std::string>& attack);

}  // namespace millrace
