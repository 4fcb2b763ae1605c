// SPDX-License-Identifier: Apache-2.0
// What an untrusted program tries, one attack a run: sandbox_attacks NAME [ARGUMENT]. Prints "ALLOWED" where it got
// through, "blocked: REASON" where it did not. The tests run it in the sandbox, and some attacks without one too, so
// that it is known that the sandbox is what stops them.
#include <dirent.h>
#include <fcntl.h>
#include <linux/net.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

extern char** environ;

namespace {

std::string argument;

long Open(const std::string& path, int flags) { return open(path.c_str(), flags, 0600); }
std::string OfParent(const char* file) { return "/proc/" + std::to_string(getppid()) + "/" + file; }

// ---- files -------------------------------------------------------------------------------------------------------

long ReadFile(const std::string& path) {
  const long fd = Open(path, O_RDONLY);
  char byte;
  return fd < 0 ? -1 : read(static_cast<int>(fd), &byte, 1);
}
long ReadPasswd() { return ReadFile("/etc/passwd"); }
long ReadByDots() { return ReadFile("../../../../../../etc/passwd"); }
long ReadSecret() { return ReadFile(argument); }
long ListRoot() { return opendir("/") == nullptr ? -1 : 0; }
long ListProc() { return opendir("/proc") == nullptr ? -1 : 0; }
long ReadThroughLink() { return symlink(argument.c_str(), "link") != 0 ? -1 : ReadFile("link"); }
long ReadThroughFolderLink() { return symlink("/", "root") != 0 ? -1 : ReadFile("root" + argument); }
long ReadThroughHardLink() { return link(argument.c_str(), "hard") != 0 ? -1 : ReadFile("hard"); }
long ReadEnvironOfParent() { return ReadFile(OfParent("environ")); }
long OpenMemoryOfParent() { return Open(OfParent("mem"), O_RDWR); }
long ReadEnvironOfInit() { return ReadFile("/proc/1/environ"); }
long ReadThroughProcRoot() { return ReadFile("/proc/self/root/etc/passwd"); }
long OpenOwnDescriptors() { return opendir("/proc/self/fd") == nullptr ? -1 : 0; }
long WriteSecret() { return Open(argument, O_WRONLY); }
long EmptySecret() { return Open(argument, O_RDONLY | O_TRUNC); }
long TruncateSecret() { return truncate(argument.c_str(), 0); }
long MakeBeside() { return Open(argument + ".new", O_WRONLY | O_CREAT | O_EXCL); }
long MakeFolderBeside() { return mkdir((argument + ".folder").c_str(), 0700); }
long RemoveSecret() { return unlink(argument.c_str()); }
long RenameOut() { return Open("mine", O_WRONLY | O_CREAT) < 0 ? -1 : rename("mine", (argument + ".moved").c_str()); }
long RenameIn() { return rename(argument.c_str(), "taken"); }
long ChangeMode() { return chmod(argument.c_str(), 0777); }
long ChangeOwner() { return chown(argument.c_str(), getuid(), getgid()); }
long ChangeTimes() { return utimensat(AT_FDCWD, argument.c_str(), nullptr, 0); }
long ChangeModeOfLibraries() { return chmod("/usr/lib", 0755); }
long WriteLibraries() { return Open("/usr/lib/millrace-attack", O_WRONLY | O_CREAT); }
long WriteProgram() { return Open("/proc/self/exe", O_WRONLY); }
long OpenKernelLog() { return Open("/dev/kmsg", O_RDONLY); }
long OpenTerminal() { return Open("/dev/tty", O_RDWR); }
long MakeSharedMemoryFile() { return Open("/dev/shm/millrace-attack", O_RDWR | O_CREAT); }
long MakeFifo() { return mkfifo("fifo", 0600); }
long MakeDevice() { return mknod("device", S_IFCHR | 0600, makedev(1, 3)); }
long MakeSocketFile() { return mknod("socket", S_IFSOCK | 0600, 0); }
long LongName() { return Open(std::string(5000, 'a'), O_WRONLY | O_CREAT); }
long SparseTerabyte() {
  signal(SIGXFSZ, SIG_IGN);
  const long fd = Open("sparse", O_WRONLY | O_CREAT);
  return fd < 0 ? -1 : ftruncate(static_cast<int>(fd), 1L << 40);
}

// ---- processes ---------------------------------------------------------------------------------------------------

long Leave(long pid) {
  if (pid == 0) _exit(0);
  return pid;
}
long Fork() { return Leave(syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr)); }
long ForkByLibrary() { return Leave(fork()); }
long Clone3() {
  unsigned long arguments[11] = {};
  arguments[4] = SIGCHLD;
  return Leave(syscall(SYS_clone3, arguments, sizeof(arguments)));
}
long CloneIntoUserNamespace() { return Leave(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)); }
long ExecuteShell() { return execl("/bin/sh", "sh", "-c", "echo ALLOWED", nullptr); }
long ExecuteSetuid() { return execl("/bin/su", "su", "--version", nullptr); }
long ExecuteOwnFile() {
  FILE* file = fopen("own", "w");
  if (file == nullptr || fputs("#!/bin/sh\necho ALLOWED\n", file) < 0 || fclose(file) != 0) return -1;
  fchmodat(AT_FDCWD, "own", 0700, 0);
  return execl("./own", "own", nullptr);
}
long ExecuteMemory() { return syscall(SYS_memfd_create, "program", 0); }
long KillParent() { return kill(getppid(), 0); }
long KillAll() { return kill(-1, 0); }
long SignalThroughPidfd() {
  const long fd = syscall(SYS_pidfd_open, getppid(), 0);
  return fd < 0 ? -1 : syscall(SYS_pidfd_send_signal, fd, 0, nullptr, 0);
}
long SignalThroughOwner() {
  int ends[2];
  return pipe(ends) != 0 ? -1 : fcntl(ends[0], F_SETOWN, getppid());
}
long Trace() { return ptrace(PTRACE_SEIZE, getppid(), nullptr, nullptr); }
long ReadMemoryOfParent() {
  char byte;
  iovec own{&byte, 1}, other{environ, 1};
  errno = 0;
  const long result = syscall(SYS_process_vm_readv, getppid(), &own, 1, &other, 1, 0);
  return result < 0 && errno == EFAULT ? 0 : result;  // allowed, but not mapped there
}
long LimitsOfParent() {
  rlimit limit;
  return static_cast<long>(prlimit(getppid(), RLIMIT_NOFILE, nullptr, &limit));
}
long RaiseLimit() {
  const rlimit limit{64, 64};
  return setrlimit(RLIMIT_NOFILE, &limit);
}
long BecomeRoot() { return syscall(SYS_setuid, 0); }
long Unshare() { return unshare(CLONE_NEWUSER); }
long Mount() { return mount("none", ".", "tmpfs", 0, nullptr); }
long PivotRoot() { return syscall(SYS_pivot_root, ".", "."); }
long ChangeRoot() { return chroot("."); }
long IoUring() {
  char parameters[120] = {};
  return syscall(SYS_io_uring_setup, 1, parameters);
}
long Bpf() {
  char attributes[128] = {};
  return syscall(SYS_bpf, 0, attributes, sizeof(attributes));
}
long PerfEvents() {
  char attributes[128] = {};
  return syscall(SYS_perf_event_open, attributes, 0, -1, -1, 0);
}
long UserFaults() { return syscall(SYS_userfaultfd, O_CLOEXEC | 1); }
long Keys() { return syscall(SYS_keyctl, 0, -3, 0, 0, 0); }
long LoadKernel() { return syscall(SYS_kexec_load, 0, 0, nullptr, 0); }
long LoadModule() { return syscall(SYS_init_module, "", 0, ""); }
long Personality() { return syscall(SYS_personality, 0xffffffff); }
long SharedMemory() { return syscall(SYS_shmget, 0, 4096, 01600); }
long MessageQueue() { return syscall(SYS_msgget, 0, 01600); }
long HugePages() {
  return mmap(nullptr, 2 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0) == MAP_FAILED ? -1 : 0;
}
long SetClock() {
  const timespec now{1, 0};
  return clock_settime(CLOCK_REALTIME, &now);
}
long Affinity() {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(0, &one);
  return sched_setaffinity(0, sizeof(one), &one);
}
long Nice() { return setpriority(PRIO_PROCESS, 0, 1); }
long TypeIntoTerminal() {
  char key = 'x';
  return ioctl(0, TIOCSTI, &key);
}
long By32Bit() {
#if defined(__x86_64__)
  long result = 20;  // getpid of i386
  asm volatile("int $0x80" : "+a"(result) : : "memory");
  return result;
#else
  return -1;
#endif
}
long ByX32() { return syscall(0x40000000 + SYS_getpid); }

// ---- network -----------------------------------------------------------------------------------------------------

long Inet() { return socket(AF_INET, SOCK_STREAM, 0); }
long Inet6() { return socket(AF_INET6, SOCK_DGRAM, 0); }
long Unix() { return socket(AF_UNIX, SOCK_STREAM, 0); }
long UnixPair() {
  int ends[2];
  return socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
}
long Netlink() { return socket(AF_NETLINK, SOCK_RAW, 0); }
long Packet() { return socket(AF_PACKET, SOCK_RAW, 0); }
long RawIcmp() { return socket(AF_INET, SOCK_RAW, 1); }
long Vsock() { return socket(AF_VSOCK, SOCK_STREAM, 0); }
long Crypto() { return socket(AF_ALG, SOCK_SEQPACKET, 0); }

// ---- what was inherited ------------------------------------------------------------------------------------------

long Refuse(bool is_refused) {
  errno = 0;
  return is_refused ? -1 : 0;
}
long InheritedDescriptors() {
  for (int fd = 3; fd < 4096; ++fd) {
    if (fcntl(fd, F_GETFD) >= 0) return Refuse(false);
  }
  return Refuse(true);
}
long InheritedEnvironment() {
  for (char** one = environ; *one != nullptr; ++one) {
    const std::string name = std::string(*one).substr(0, std::string(*one).find('='));
    if (name != "PATH" && name != "LANG" && name != "HOME" && name != "TMPDIR") return Refuse(false);
  }
  return Refuse(true);
}
long DumpCore() {
  rlimit limit{1, 1};
  getrlimit(RLIMIT_CORE, &limit);
  return Refuse(limit.rlim_max == 0);
}
long KeepRoot() { return Refuse(getuid() != 0); }

// ---- limits: these do not return by themselves ---------------------------------------------------------------------

long Spin() {
  for (volatile long i = 0;; i = i + 1) {
  }
}
long Sleep() {
  signal(SIGTERM, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  for (;;) pause();
}
long SleepWithoutOutput() {
  close(1);
  close(2);
  return Sleep();
}
long Flood() {
  const std::string piece(4096, 'x');  // no newline
  for (;;) {
    if (write(std::atoi(argument.c_str()), piece.data(), piece.size()) < 0) return -1;
  }
}
long Memory() {
  size_t bytes = 0;
  while (auto* memory = static_cast<volatile char*>(malloc(16 << 20))) {  // volatile: no compiler may leave it out
    for (size_t i = 0; i < 16 << 20; i += 4096) memory[i] = 1;
    if ((bytes += 16 << 20) > (size_t{2} << 30)) return 0;
  }
  return -1;
}
long BigFile() {
  signal(SIGXFSZ, SIG_IGN);
  const long fd = Open("big", O_WRONLY | O_CREAT);
  const std::string piece(1 << 20, 'x');
  for (int i = 0; i < 1024; ++i) {
    if (write(static_cast<int>(fd), piece.data(), piece.size()) < 0) return -1;
  }
  return 0;
}
long ManyDescriptors() {
  int count = 0;
  while (dup(0) >= 0) ++count;
  if (count > 64) errno = 0;
  return -1;
}
long ManyFiles() {
  for (long i = 0;; ++i) close(static_cast<int>(Open("file-" + std::to_string(i), O_WRONLY | O_CREAT)));
}
long MuchDisk() {
  const std::string piece(8 << 20, 'x');
  for (long i = 0;; i = (i + 1) % 200) {
    const long fd = Open("part-" + std::to_string(i), O_WRONLY | O_CREAT | O_TRUNC);
    if (write(static_cast<int>(fd), piece.data(), piece.size()) < 0) return -1;
    close(static_cast<int>(fd));
  }
}
long DeepFolders() {
  for (int i = 0; i < 20000; ++i) {
    if (mkdir("d", 0700) != 0 || chdir("d") != 0) break;
    if (i == 10000) Open("f", O_WRONLY | O_CREAT);
  }
  return Sleep();
}
long ClosedFolder() {
  mkdir("closed", 0700);
  mkdir("closed/inner", 0700);
  Open("closed/inner/file", O_WRONLY | O_CREAT);
  mkdir("shut", 0);
  Open("moved-0", O_WRONLY | O_CREAT);
  return 0;
}
int SleepingThread(void*) {
  for (;;) syscall(SYS_nanosleep, "\xff\xff\0\0\0\0\0\0\0\0\0\0\0\0\0", nullptr);
}
long ManyThreads() {
  for (;;) {
    char* stack = static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (stack == MAP_FAILED) return Sleep();
    clone(SleepingThread, stack + 8192, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_FS | CLONE_FILES, nullptr);
  }
}

// ---- what must go on working: ALLOWED is the right answer ----------------------------------------------------------

long UseFolder() {
  if (mkdir("folder", 0700) != 0 || Open("folder/a", O_WRONLY | O_CREAT) < 0) return -1;
  if (rename("folder/a", "b") != 0 || symlink("b", "c") != 0 || Open("c", O_RDWR | O_TRUNC) < 0) return -1;
  return unlink("c") != 0 || rmdir("folder") != 0 ? -1 : 0;
}
long UseThread() {
  int value = 1;
  std::thread([&] { value = 0; }).join();
  return value;
}
long ReadInput() {
  char text[16];
  const long bytes = read(0, text, sizeof(text));
  if (bytes > 0) fwrite(text, 1, static_cast<size_t>(bytes), stdout);
  return bytes;
}

struct Attack {
  const char* name;
  long (*run)();
};
#define ATTACK(name) {#name, name}
const Attack kAttacks[] = {
    ATTACK(ReadPasswd),
    ATTACK(ReadByDots),
    ATTACK(ReadSecret),
    ATTACK(ListRoot),
    ATTACK(ListProc),
    ATTACK(ReadThroughLink),
    ATTACK(ReadThroughFolderLink),
    ATTACK(ReadThroughHardLink),
    ATTACK(ReadEnvironOfParent),
    ATTACK(OpenMemoryOfParent),
    ATTACK(ReadEnvironOfInit),
    ATTACK(ReadThroughProcRoot),
    ATTACK(OpenOwnDescriptors),
    ATTACK(WriteSecret),
    ATTACK(EmptySecret),
    ATTACK(TruncateSecret),
    ATTACK(MakeBeside),
    ATTACK(MakeFolderBeside),
    ATTACK(RemoveSecret),
    ATTACK(RenameOut),
    ATTACK(RenameIn),
    ATTACK(ChangeMode),
    ATTACK(ChangeOwner),
    ATTACK(ChangeTimes),
    ATTACK(ChangeModeOfLibraries),
    ATTACK(WriteLibraries),
    ATTACK(WriteProgram),
    ATTACK(OpenKernelLog),
    ATTACK(OpenTerminal),
    ATTACK(MakeSharedMemoryFile),
    ATTACK(MakeFifo),
    ATTACK(MakeDevice),
    ATTACK(MakeSocketFile),
    ATTACK(LongName),
    ATTACK(SparseTerabyte),
    ATTACK(Fork),
    ATTACK(ForkByLibrary),
    ATTACK(Clone3),
    ATTACK(CloneIntoUserNamespace),
    ATTACK(ExecuteShell),
    ATTACK(ExecuteSetuid),
    ATTACK(ExecuteOwnFile),
    ATTACK(ExecuteMemory),
    ATTACK(KillParent),
    ATTACK(KillAll),
    ATTACK(SignalThroughPidfd),
    ATTACK(SignalThroughOwner),
    ATTACK(Trace),
    ATTACK(ReadMemoryOfParent),
    ATTACK(LimitsOfParent),
    ATTACK(RaiseLimit),
    ATTACK(BecomeRoot),
    ATTACK(Unshare),
    ATTACK(Mount),
    ATTACK(PivotRoot),
    ATTACK(ChangeRoot),
    ATTACK(IoUring),
    ATTACK(Bpf),
    ATTACK(PerfEvents),
    ATTACK(UserFaults),
    ATTACK(Keys),
    ATTACK(LoadKernel),
    ATTACK(LoadModule),
    ATTACK(Personality),
    ATTACK(SharedMemory),
    ATTACK(MessageQueue),
    ATTACK(HugePages),
    ATTACK(SetClock),
    ATTACK(Affinity),
    ATTACK(Nice),
    ATTACK(TypeIntoTerminal),
    ATTACK(By32Bit),
    ATTACK(ByX32),
    ATTACK(Inet),
    ATTACK(Inet6),
    ATTACK(Unix),
    ATTACK(UnixPair),
    ATTACK(Netlink),
    ATTACK(Packet),
    ATTACK(RawIcmp),
    ATTACK(Vsock),
    ATTACK(Crypto),
    ATTACK(InheritedDescriptors),
    ATTACK(InheritedEnvironment),
    ATTACK(DumpCore),
    ATTACK(KeepRoot),
    ATTACK(Spin),
    ATTACK(Sleep),
    ATTACK(SleepWithoutOutput),
    ATTACK(Flood),
    ATTACK(Memory),
    ATTACK(BigFile),
    ATTACK(ManyDescriptors),
    ATTACK(ManyFiles),
    ATTACK(MuchDisk),
    ATTACK(DeepFolders),
    ATTACK(ClosedFolder),
    ATTACK(ManyThreads),
    ATTACK(UseFolder),
    ATTACK(UseThread),
    ATTACK(ReadInput),
};

}  // namespace

int main(int count, char** arguments) {
  if (count > 2) argument = arguments[2];
  for (const Attack& attack : kAttacks) {
    if (count < 2 || std::strcmp(attack.name, arguments[1]) != 0) continue;
    if (attack.run() >= 0) {
      std::puts("ALLOWED");
    } else {
      std::printf("blocked: %s\n", errno == 0 ? "nothing there" : strerrorname_np(errno));
    }
    return 0;
  }
  std::puts("no such attack");
  return 2;
}
