// SPDX-License-Identifier: Apache-2.0
#include "tests/agent/sandbox_fixture.h"

#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"

namespace millrace {
namespace {

constexpr uid_t kNobody = 65534;

bool LoseCapabilities() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  const __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  return getuid() == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && syscall(SYS_capset, &header, none) == 0;
}

bool BecomeNobody() {
  return setgroups(0, nullptr) == 0 && setresgid(kNobody, kNobody, kNobody) == 0 &&
         setresuid(kNobody, kNobody, kNobody) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_DUMPABLE, 1) == 0;
}

bool Become(Who who) { return who == Who::kCaller || (who == Who::kNobody ? BecomeNobody() : LoseCapabilities()); }

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

std::string Describe(const SandboxOutcome& outcome) {
  switch (outcome.end) {
    case SandboxEnd::kExited:
      return FirstLine(outcome.output);
    case SandboxEnd::kSignalled:
      return absl::StrCat("signal ", outcome.code);
    case SandboxEnd::kDeadline:
      return "deadline";
    case SandboxEnd::kCancelled:
      return "cancelled";
    case SandboxEnd::kTooMuchOutput:
      return "too much output";
    case SandboxEnd::kTooMuchDisk:
      return "too much disk";
    case SandboxEnd::kTooManyThreads:
      return "too many threads";
  }
  return "";
}

}  // namespace

std::string InProcessOf(Who who, const std::function<std::string()>& body) {
  int ends[2];
  if (pipe(ends) != 0) return "";
  const pid_t pid = fork();
  if (pid == 0) {
    close(ends[0]);
    std::string text = Become(who) ? body() : "cannot change the user";
    const bool is_written = write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size());
    _exit(is_written ? 0 : 1);
  }
  close(ends[1]);
  std::string text;
  char piece[4096];
  for (ssize_t bytes; (bytes = read(ends[0], piece, sizeof(piece))) > 0;) text.append(piece, bytes);
  close(ends[0]);
  waitpid(pid, nullptr, 0);
  return text;
}

bool CanRun(Who who) {
  const SandboxSupport support = ProbeSandbox();
  if (!support.is_complete()) {
    WARN("[SKIPPED] no sandbox here, the kernel lacks: " << absl::StrJoin(support.missing, "; "));
    return false;
  }
  if (who != Who::kCaller && InProcessOf(who, [] { return std::string("yes"); }) != "yes") {
    WARN("[SKIPPED] only root can become nobody, or root without capabilities");
    return false;
  }
  return true;
}

TestFolder::TestFolder() : path_("/tmp/millrace-test-XXXXXX") {
  if (mkdtemp(path_.data()) == nullptr) std::abort();
  chmod(path_.c_str(), 0755);
}
TestFolder::~TestFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}
bool TestFolder::IsEmpty() const { return std::filesystem::is_empty(path_); }

const std::string& AttackProgram() {
  static const TestFolder folder;
  static const std::string path = [] {
    const std::string copy = folder.path() + "/attacks";
    std::filesystem::copy_file(MILLRACE_ATTACKS, copy);
    chmod(copy.c_str(), 0755);
    return copy;
  }();
  return path;
}

std::string RunAttack(const std::vector<std::string>& attack, const SandboxLimits& limits, absl::Duration limit) {
  const TestFolder scratch;
  chmod(scratch.path().c_str(), 0711);
  SandboxedProgram program{.command = {AttackProgram()},
                           .readable = {"/usr/lib", "/lib", "/lib64"},
                           .files = {},
                           .input = "",
                           .scratch_folder = scratch.path(),
                           .limits = limits};
  program.command.insert(program.command.end(), attack.begin(), attack.end());
  const Cancellation cancellation;
  const absl::StatusOr<SandboxOutcome> outcome = RunSandboxed(program, absl::Now() + limit, cancellation);
  if (!outcome.ok()) return std::string(outcome.status().message());
  std::string result = Describe(*outcome);
  if (!scratch.IsEmpty()) result += ", and a file is left";
  if (waitpid(-1, nullptr, WNOHANG) != -1 || errno != ECHILD) result += ", and a process is left";
  return result;
}

std::string RunAttackFreely(const std::vector<std::string>& attack) {
  const TestFolder folder;
  std::string command = absl::StrCat("cd ", folder.path(), " && ", AttackProgram());
  for (const std::string& word : attack) absl::StrAppend(&command, " ", word);
  FILE* output = popen(command.c_str(), "r");
  char line[256] = "";
  if (output == nullptr || fgets(line, sizeof(line), output) == nullptr) line[0] = 0;
  if (output != nullptr) pclose(output);
  return FirstLine(line);
}

}  // namespace millrace
