// SPDX-License-Identifier: Apache-2.0
#include "agent/sandbox/syscall_filter.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace millrace {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
constexpr uint32_t kX32Bit = 0x40000000;  // in call numbers: the same architecture, other arguments
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
constexpr uint32_t kArchitecture = 0;
#endif

// Allowed whatever the arguments.
constexpr uint32_t kAllowed[] = {
    // descriptors
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_pread64,
    SYS_pwrite64,
    SYS_preadv,
    SYS_pwritev,
    SYS_lseek,
    SYS_close,
    SYS_close_range,
    SYS_dup,
    SYS_dup3,
    SYS_pipe2,
    SYS_ppoll,
    SYS_pselect6,
    SYS_ftruncate,
    // files: Landlock decides which
    SYS_fstat,
    SYS_newfstatat,
    SYS_statx,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_readlinkat,
    SYS_getdents64,
    SYS_getcwd,
    SYS_chdir,
    SYS_fchdir,
    SYS_statfs,
    SYS_fstatfs,
    SYS_mkdirat,
    SYS_unlinkat,
    SYS_renameat2,
    SYS_symlinkat,
    SYS_linkat,
    SYS_umask,
    // memory
    SYS_munmap,
    SYS_mprotect,
    SYS_mremap,
    SYS_brk,
    SYS_madvise,
    // signals of its own
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_restart_syscall,
    // threads
    SYS_futex,
    SYS_set_robust_list,
    SYS_set_tid_address,
    SYS_rseq,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    // who and when
    SYS_getpid,
    SYS_gettid,
    SYS_getppid,
    SYS_getpgid,
    SYS_getsid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_getgroups,
    SYS_getresuid,
    SYS_getresgid,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_gettimeofday,
    SYS_getrandom,
    SYS_uname,
    SYS_sysinfo,
    SYS_getrusage,
    SYS_times,
    SYS_getcpu,
    // the beginning and the end; what may be executed is Landlock's word
    SYS_execve,
    SYS_exit,
    SYS_exit_group,
    SYS_wait4,
    SYS_waitid,
#if defined(__x86_64__)
    SYS_dup2,
    SYS_pipe,
    SYS_poll,
    SYS_select,
    SYS_stat,
    SYS_lstat,
    SYS_access,
    SYS_readlink,
    SYS_mkdir,
    SYS_rmdir,
    SYS_unlink,
    SYS_rename,
    SYS_renameat,
    SYS_symlink,
    SYS_link,
    SYS_time,
    SYS_getrlimit,
    SYS_getpgrp,
    SYS_arch_prctl,
#endif
};

// Half of an argument, masked, must have one of some values.
struct Check {
  uint32_t offset;  // in seccomp_data
  uint32_t mask;
  std::vector<uint32_t> values;
};
struct Rule {
  uint32_t call;
  std::vector<Check> checks;  // all must hold, else EPERM
};

constexpr uint32_t LowHalf(uint32_t argument) {  // little endian, as both architectures are
  return static_cast<uint32_t>(offsetof(seccomp_data, args)) + argument * 8;
}
constexpr uint32_t HighHalf(uint32_t argument) { return LowHalf(argument) + 4; }

// A file that is opened for reading must not be emptied on the way: Landlock sees that from ABI 3 on only.
Check OpenFlags(uint32_t argument) {
  return {LowHalf(argument), O_ACCMODE | O_TRUNC, {O_RDONLY, O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC, O_RDWR | O_TRUNC}};
}

std::vector<Rule> Rules() {
  constexpr uint32_t kNewNamespaces =
      CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
  return {
      // Threads, no processes.
      {SYS_clone, {{LowHalf(0), CLONE_THREAD | CLONE_PTRACE | CLONE_UNTRACED | kNewNamespaces, {CLONE_THREAD}}}},
      {SYS_openat, {OpenFlags(2)}},
#if defined(__x86_64__)
      {SYS_open, {OpenFlags(1)}},
#endif
      // No owner of signals, no leases, no locks on files of others, no bigger pipes.
      {SYS_fcntl, {{LowHalf(1), ~0u, {F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL}}}},
      // Whether something is a terminal, and two flags; not TIOCSTI and its like.
      {SYS_ioctl, {{LowHalf(1), ~0u, {TCGETS, FIONREAD, FIOCLEX, FIONCLEX, FIONBIO}}}},
      {SYS_prctl, {{LowHalf(0), ~0u, {PR_SET_NAME, PR_GET_NAME}}}},
      // Reading its own limits.
      {SYS_prlimit64, {{LowHalf(0), ~0u, {0}}, {LowHalf(2), ~0u, {0}}, {HighHalf(2), ~0u, {0}}}},
      {SYS_mmap, {{LowHalf(3), MAP_HUGETLB, {0}}}},
  };
}

class FilterBuilder {
 public:
  void Load(uint32_t offset) { Add(BPF_LD | BPF_W | BPF_ABS, offset); }
  void Return(uint32_t action) { Add(BPF_RET | BPF_K, action); }
  // Each skips `count` instructions, by how the loaded word compares with the value.
  void SkipIf(uint32_t value, uint8_t count) { Add(BPF_JMP | BPF_JEQ | BPF_K, value, count, 0); }
  void SkipIfBelow(uint32_t value, uint8_t count) { Add(BPF_JMP | BPF_JGE | BPF_K, value, 0, count); }
  void SkipUnless(uint32_t value, uint8_t count) { Add(BPF_JMP | BPF_JEQ | BPF_K, value, 0, count); }

  void AddRule(const Rule& rule) {
    FilterBuilder body;
    for (const Check& check : rule.checks) {
      body.Load(check.offset);
      body.Add(BPF_ALU | BPF_AND | BPF_K, check.mask);
      // Each value jumps over the others and the refusal.
      const auto count = static_cast<uint8_t>(check.values.size());
      for (uint8_t i = 0; i < count; ++i) {
        body.SkipIf(check.values[i], static_cast<uint8_t>(count - i));
      }
      body.Return(SECCOMP_RET_ERRNO | EPERM);
    }
    body.Return(SECCOMP_RET_ALLOW);
    SkipUnless(rule.call, static_cast<uint8_t>(body.code_.size()));
    code_.insert(code_.end(), body.code_.begin(), body.code_.end());
  }
  std::vector<sock_filter> Take() { return std::move(code_); }

 private:
  void Add(uint16_t code, uint32_t k, uint8_t if_true = 0, uint8_t if_false = 0) {
    code_.push_back({code, if_true, if_false, k});
  }
  std::vector<sock_filter> code_;
};

}  // namespace

std::vector<sock_filter> MakeSyscallFilter() {
  if (kArchitecture == 0) return {};
  FilterBuilder filter;
  filter.Load(offsetof(seccomp_data, arch));
  filter.SkipIf(kArchitecture, 1);
  filter.Return(SECCOMP_RET_KILL_PROCESS);
  filter.Load(offsetof(seccomp_data, nr));
#if defined(__x86_64__)
  filter.SkipIfBelow(kX32Bit, 1);
  filter.Return(SECCOMP_RET_KILL_PROCESS);
#endif
  for (const uint32_t call : kAllowed) {
    filter.SkipUnless(call, 1);
    filter.Return(SECCOMP_RET_ALLOW);
  }
  for (const Rule& rule : Rules()) filter.AddRule(rule);
  filter.SkipUnless(SYS_clone3, 1);
  filter.Return(SECCOMP_RET_ERRNO | ENOSYS);
  filter.Return(SECCOMP_RET_ERRNO | EPERM);
  return filter.Take();
}

}  // namespace millrace
