// SPDX-License-Identifier: Apache-2.0
#include "agent/sandbox/sandbox.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <memory>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "agent/sandbox/landlock.h"
#include "agent/sandbox/launch.h"
#include "agent/sandbox/pipe.h"
#include "agent/sandbox/syscall_filter.h"
#include "agent/sandbox/unique_fd.h"
#include "agent/sandbox/work_folder.h"

namespace millrace {
namespace {

constexpr absl::Duration kLookInterval = absl::Milliseconds(50);
// Dynamically linked programs are started by one of these.
constexpr const char* kElfInterpreters[] = {"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"};

absl::Status Failed(const char* what) {
  return absl::InternalError(absl::StrCat("the sandbox was not complete: ", what, ", error ", errno));
}

// stdin is a sealed file in memory: nobody has to feed it, and a program that never reads it holds nobody up.
absl::StatusOr<UniqueFd> MakeInput(std::string_view input) {
  UniqueFd file = AboveStandard(UniqueFd(memfd_create("stdin", MFD_CLOEXEC | MFD_ALLOW_SEALING)));
  if (file.get() < 0) return Failed("memfd_create");
  while (!input.empty()) {
    const ssize_t written = write(file.get(), input.data(), input.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return Failed("write");
    input.remove_prefix(static_cast<size_t>(written));
  }
  if (fcntl(file.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0 ||
      lseek(file.get(), 0, SEEK_SET) != 0) {
    return Failed("F_ADD_SEALS");
  }
  return file;
}

std::vector<std::pair<int, rlim_t>> ResourceLimits(const SandboxLimits& limits) {
  return {
      {RLIMIT_CPU, limits.cpu_seconds},
      {RLIMIT_AS, limits.memory_bytes},
      {RLIMIT_FSIZE, limits.file_bytes},
      {RLIMIT_CORE, 0},
      {RLIMIT_NOFILE, limits.open_files},
      {RLIMIT_MEMLOCK, 0},
      {RLIMIT_MSGQUEUE, 0},
      {RLIMIT_STACK, 8 << 20},
  };
}

// The number of a process's threads; nothing where /proc does not tell.
std::optional<int64_t> CountThreads(const std::string& process) {
  const UniqueFd file(open(absl::StrCat("/proc/", process, "/stat").c_str(), O_RDONLY | O_CLOEXEC));
  char text[1024];
  const ssize_t bytes = file.get() < 0 ? -1 : read(file.get(), text, sizeof(text));
  if (bytes <= 0) return std::nullopt;
  // "pid (name) state ppid ...": the name may hold anything, the last parenthesis ends it. num_threads is field 20.
  const std::string_view line(text, static_cast<size_t>(bytes));
  const size_t end_of_name = line.rfind(')');
  if (end_of_name == line.npos) return std::nullopt;
  const std::vector<std::string> fields = absl::StrSplit(std::string(line.substr(end_of_name + 1)), ' ');
  int64_t threads = 0;
  if (fields.size() < 19 || !absl::SimpleAtoi(fields[18], &threads)) return std::nullopt;
  return threads;
}

// One running program, watched.
class Watch {
 public:
  Watch(const SandboxLimits& limits, const WorkFolder& folder, LaunchedProcess process)
      : limits_(limits), folder_(folder), process_(std::move(process)) {}
  ~Watch() { EndProcess(); }

  SandboxOutcome Run(Pipe& output, Pipe& errors, absl::Time deadline, const Cancellation& cancellation) {
    pollfd ends[] = {{process_.pidfd.get(), POLLIN, 0},
                     {cancellation.fd(), POLLIN, 0},
                     {output.reader.get(), POLLIN, 0},
                     {errors.reader.get(), POLLIN, 0}};
    absl::Time next_look = absl::Now() + kLookInterval;
    std::optional<SandboxEnd> end;
    while (!end.has_value()) {
      const absl::Time now = absl::Now();
      const absl::Duration wait = std::clamp(std::min(next_look, deadline) - now, absl::ZeroDuration(), kLookInterval);
      poll(ends, std::size(ends), static_cast<int>(absl::ToInt64Milliseconds(wait)) + 1);
      const bool is_over = ends[0].revents != 0;
      if (!Read(ends[2], outcome_.output) || !Read(ends[3], outcome_.errors)) end = SandboxEnd::kTooMuchOutput;
      if (end.has_value() || is_over) break;
      if (cancellation.is_cancelled()) end = SandboxEnd::kCancelled;
      if (absl::Now() >= deadline) end = SandboxEnd::kDeadline;
      if (!end.has_value() && absl::Now() >= next_look) {
        end = Look();
        next_look = absl::Now() + kLookInterval;
      }
    }
    const SandboxEnd own_end = EndProcess();
    outcome_.end = end.value_or(own_end);
    return std::move(outcome_);
  }

 private:
  // Takes what is there; false beyond the limit. Nobody waits for the pipe's end: only the process's end counts.
  bool Read(pollfd& source, std::string& text) {
    char piece[16 << 10];
    while (source.fd >= 0) {
      const ssize_t bytes = read(source.fd, piece, sizeof(piece));
      if (bytes < 0 && errno == EINTR) continue;
      if (bytes < 0 && errno == EAGAIN) return true;
      if (bytes <= 0) {
        source.fd = -1;
        return true;
      }
      const auto room = static_cast<size_t>(limits_.output_bytes) - outcome_.output.size() - outcome_.errors.size();
      text.append(piece, std::min(room, static_cast<size_t>(bytes)));
      if (static_cast<size_t>(bytes) > room) return false;
    }
    return true;
  }

  // What no limit of the kernel counts.
  std::optional<SandboxEnd> Look() const {
    if (CountThreads(absl::StrCat(process_.pid)).value_or(limits_.threads + 1) > limits_.threads) {
      return SandboxEnd::kTooManyThreads;
    }
    if (!folder_.IsWithin(limits_.work_bytes, limits_.work_files)) return SandboxEnd::kTooMuchDisk;
    return std::nullopt;
  }

  // Kills what still runs and reaps it. The group goes first: its number is the process's until that is reaped.
  SandboxEnd EndProcess() {
    if (is_reaped_) return SandboxEnd::kSignalled;
    is_reaped_ = true;
    kill(-process_.pid, SIGKILL);
    syscall(SYS_pidfd_send_signal, process_.pidfd.get(), SIGKILL, nullptr, 0);
    siginfo_t info{};
    while (syscall(SYS_waitid, P_PIDFD, process_.pidfd.get(), &info, WEXITED, nullptr) != 0) {
      if (errno == EINTR) continue;
      return SandboxEnd::kSignalled;  // reaped by someone else: how it ended is lost
    }
    outcome_.code = info.si_status;
    return info.si_code == CLD_EXITED ? SandboxEnd::kExited : SandboxEnd::kSignalled;
  }

  const SandboxLimits& limits_;
  const WorkFolder& folder_;
  const LaunchedProcess process_;
  SandboxOutcome outcome_;
  bool is_reaped_ = false;
};

absl::Status CheckSupport(const SandboxSupport& support) {
  if (support.is_complete()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("this kernel cannot hold a tool's program; missing: ", absl::StrJoin(support.missing, "; ")));
}

absl::StatusOr<UniqueFd> MakeRuleset(const SandboxedProgram& program, int abi, const std::string& work_folder) {
  LandlockGrants grants{.readable = program.readable,
                        .executable = {program.command[0]},
                        .writable_devices = {"/dev/null"},
                        .work_folder = work_folder};
  for (const char* interpreter : kElfInterpreters) grants.optional_executable.emplace_back(interpreter);
  grants.readable.emplace_back("/dev/urandom");
  absl::StatusOr<UniqueFd> ruleset = MakeLandlockRuleset(abi, grants);
  if (!ruleset.ok()) return ruleset.status();
  return AboveStandard(*std::move(ruleset));
}

}  // namespace

SandboxSupport ProbeSandbox() {
  SandboxSupport support;
  support.landlock_abi = LandlockAbi();
  if (support.landlock_abi == 0) support.missing.emplace_back("Landlock (Linux 5.13, and \"landlock\" among lsm=)");
  const uint32_t action = SECCOMP_RET_KILL_PROCESS;
  if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) != 0) {
    support.missing.emplace_back("seccomp filters (CONFIG_SECCOMP_FILTER)");
  }
  if (MakeSyscallFilter().empty()) support.missing.emplace_back("a list of system calls for this architecture");
  if (!CountThreads("self").has_value()) support.missing.emplace_back("/proc, to count threads");
  if (syscall(SYS_close_range, ~0u, ~0u, 0) != 0) support.missing.emplace_back("close_range (Linux 5.9)");
  if (support.landlock_abi > 0) {
    if (support.landlock_abi < 4) support.weaker.emplace_back("Landlock keeps no TCP out (Linux 6.7); seccomp does");
    if (support.landlock_abi < 6)
      support.weaker.emplace_back("Landlock keeps no signals in (Linux 6.12); seccomp does");
  }
  return support;
}

absl::StatusOr<SandboxOutcome> RunSandboxed(const SandboxedProgram& program, absl::Time deadline,
                                            const Cancellation& cancellation) {
  const SandboxSupport support = ProbeSandbox();
  if (absl::Status status = CheckSupport(support); !status.ok()) return status;
  if (program.command.empty() || !program.command[0].starts_with('/')) {
    return absl::InvalidArgumentError("a tool's program must be named by its absolute path");
  }
  const absl::StatusOr<std::unique_ptr<WorkFolder>> folder = WorkFolder::Make(program.scratch_folder);
  if (!folder.ok()) return folder.status();
  for (const auto& [name, content] : program.files) {
    if (absl::Status status = (*folder)->AddFile(name, content); !status.ok()) return status;
  }
  const bool changes_user = CanChangeUser();
  if (changes_user) {
    if (absl::Status status = (*folder)->GiveTo(kSandboxUid); !status.ok()) return status;
  }

  absl::StatusOr<UniqueFd> input = MakeInput(program.input);
  if (!input.ok()) return input.status();
  absl::StatusOr<Pipe> output = MakePipe(OurEnd::kReader);
  if (!output.ok()) return output.status();
  absl::StatusOr<Pipe> errors = MakePipe(OurEnd::kReader);
  if (!errors.ok()) return errors.status();
  const absl::StatusOr<UniqueFd> ruleset = MakeRuleset(program, support.landlock_abi, (*folder)->path());
  if (!ruleset.ok()) return ruleset.status();

  const std::string& home = (*folder)->path();
  absl::StatusOr<LaunchedProcess> process =
      Launch({.command = program.command,
              .environment = {"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "HOME=" + home, "TMPDIR=" + home},
              .stdin_fd = input->get(),
              .stdout_fd = output->writer.get(),
              .stderr_fd = errors->writer.get(),
              .folder_fd = (*folder)->fd(),
              .ruleset_fd = ruleset->get(),
              .filter = MakeSyscallFilter(),
              .limits = ResourceLimits(program.limits),
              .changes_user = changes_user});
  if (!process.ok()) return process.status();
  output->writer.Close();
  errors->writer.Close();
  return Watch(program.limits, **folder, *std::move(process)).Run(*output, *errors, deadline, cancellation);
}

}  // namespace millrace
