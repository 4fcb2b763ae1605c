// SPDX-License-Identifier: Apache-2.0
#include "agent/sandbox/launch.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

// The child shares the parent's memory until it execs, as with vfork: a server full of weights need not copy its page
// tables. So the child calls the kernel and nothing else, and sanitizers must not look at it.
#if defined(__clang__)
#define MILLRACE_AFTER_CLONE __attribute__((disable_sanitizer_instrumentation, no_stack_protector))
#else
#define MILLRACE_AFTER_CLONE
#endif

namespace millrace {
namespace {

constexpr size_t kStackBytes = 64 << 10;
constexpr int kSignals = 64;

struct ChildContext {
  const LaunchPlan* plan;
  char* const* argv;
  char* const* envp;
  const sock_fprog* filter;
  pid_t parent;
  // Answers of the child.
  const char* failed_step = nullptr;
  int error = 0;
};

// What a libc's setuid does not do: this thread alone changes, and the parent's other threads are left in peace.
MILLRACE_AFTER_CLONE bool LoseUser() {
  return syscall(SYS_setgroups, 0, nullptr) == 0 &&
         syscall(SYS_setresgid, kSandboxUid, kSandboxUid, kSandboxUid) == 0 &&
         syscall(SYS_setresuid, kSandboxUid, kSandboxUid, kSandboxUid) == 0;
}

MILLRACE_AFTER_CLONE bool LoseCapabilities() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  return syscall(SYS_capset, &header, none) == 0;
}

MILLRACE_AFTER_CLONE bool ResetSignals() {
  // The kernel's own layout, whose handlers, flags and masks of zero are the defaults.
  const unsigned long defaults[4] = {};
  for (int signal = 1; signal <= kSignals; ++signal) {
    syscall(SYS_rt_sigaction, signal, defaults, nullptr, sizeof(uint64_t));  // fails for SIGKILL and SIGSTOP alone
  }
  const uint64_t none = 0;
  return syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, nullptr, sizeof(none)) == 0;
}

MILLRACE_AFTER_CLONE bool TakeDescriptors(const LaunchPlan& plan) {
  return syscall(SYS_dup3, plan.stdin_fd, STDIN_FILENO, 0) >= 0 &&
         syscall(SYS_dup3, plan.stdout_fd, STDOUT_FILENO, 0) >= 0 &&
         syscall(SYS_dup3, plan.stderr_fd, STDERR_FILENO, 0) >= 0;
}

MILLRACE_AFTER_CLONE bool TakeLimits(const LaunchPlan& plan) {
  for (size_t i = 0; i < plan.limits.size(); ++i) {
    const std::pair<int, rlim_t>& limit = plan.limits.data()[i];
    const rlimit both{.rlim_cur = limit.second, .rlim_max = limit.second};
    if (syscall(SYS_prlimit64, 0, limit.first, &both, nullptr) != 0) return false;
  }
  return true;
}

// The end of the parent before PDEATHSIG was set would go unnoticed.
MILLRACE_AFTER_CLONE bool TieToParent(pid_t parent) {
  return syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 && syscall(SYS_getppid) == parent;
}

MILLRACE_AFTER_CLONE const char* BecomeProgram(ChildContext& child) {
  const LaunchPlan& plan = *child.plan;
  const bool is_sandboxed = plan.tier == LaunchTier::kSandboxed;
  if (syscall(SYS_setsid) < 0) return "setsid";
  if (!TakeDescriptors(plan)) return "dup3";
  if (syscall(SYS_fchdir, plan.folder_fd) != 0) return "fchdir";
  syscall(SYS_umask, 022);
  if (!TakeLimits(plan)) return "prlimit64";
  if (plan.changes_user && !LoseUser()) return "setresuid";
  if (is_sandboxed && !LoseCapabilities()) return "capset";
  if (!TieToParent(child.parent)) return "PR_SET_PDEATHSIG";  // a change of user would undo it
  if (syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return "PR_SET_NO_NEW_PRIVS";
  if (is_sandboxed && syscall(SYS_landlock_restrict_self, plan.ruleset_fd, 0) != 0) return "landlock_restrict_self";
  if (syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, 0) != 0) return "close_range";
  if (!ResetSignals()) return "rt_sigprocmask";
  if (is_sandboxed && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, child.filter) != 0) return "seccomp";
  syscall(SYS_execve, child.argv[0], child.argv, child.envp);
  return "execve";
}

MILLRACE_AFTER_CLONE int ChildMain(void* context) {
  ChildContext& child = *static_cast<ChildContext*>(context);
  child.failed_step = BecomeProgram(child);
  child.error = errno;
  syscall(SYS_exit_group, 127);
  return 127;
}

std::vector<char*> Pointers(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

class Stack {
 public:
  Stack() : memory_(mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {}
  ~Stack() {
    if (is_there()) munmap(memory_, kStackBytes);
  }
  bool is_there() const { return memory_ != MAP_FAILED; }
  void* top() const { return static_cast<char*>(memory_) + kStackBytes; }

 private:
  void* const memory_;
};

// No signal handler of the server may run in the child, where its memory is still the server's.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

}  // namespace

bool CanChangeUser() {
  if (geteuid() != 0) return false;
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct held[_LINUX_CAPABILITY_U32S_3] = {};
  if (syscall(SYS_capget, &header, held) != 0) return false;
  for (const int needed : {CAP_SETUID, CAP_SETGID, CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_KILL}) {
    if ((held[0].effective & (1u << needed)) == 0) return false;
  }
  return true;
}

absl::StatusOr<LaunchedProcess> Launch(const LaunchPlan& plan) {
  const std::vector<char*> argv = Pointers(plan.command);
  const std::vector<char*> envp = Pointers(plan.environment);
  const sock_fprog filter{.len = static_cast<unsigned short>(plan.filter.size()),
                          .filter = const_cast<sock_filter*>(plan.filter.data())};
  ChildContext child{.plan = &plan, .argv = argv.data(), .envp = envp.data(), .filter = &filter, .parent = getpid()};
  const Stack stack;
  if (!stack.is_there()) return absl::ResourceExhaustedError("no memory for the stack of a tool's process");

  // A change of user in the child marks the memory as not to be traced or dumped, also for the server, whose memory it
  // is. That stays: until it execs, the child must be out of reach of whoever else has its new uid.
  int pidfd = -1;
  int error = 0;
  pid_t pid = -1;
  {
    const SignalsBlocked blocked;
    pid = clone(ChildMain, stack.top(), CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &child, &pidfd);
    error = errno;
  }
  if (pid < 0) return absl::InternalError(absl::StrCat("no process for a tool: clone: ", strerrordesc_np(error)));
  LaunchedProcess process{.pid = pid, .pidfd = UniqueFd(pidfd)};
  if (child.failed_step != nullptr) {
    siginfo_t info;
    while (syscall(SYS_waitid, P_PIDFD, pidfd, &info, WEXITED, nullptr) != 0 && errno == EINTR) {
    }
    const bool is_sandboxed = plan.tier == LaunchTier::kSandboxed;
    return absl::InternalError(absl::StrCat(is_sandboxed ? "the sandbox was not complete: " : "not started: ",
                                            child.failed_step, ": ", strerrordesc_np(child.error)));
  }
  return process;
}

}  // namespace millrace
