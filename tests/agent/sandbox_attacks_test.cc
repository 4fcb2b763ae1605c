// SPDX-License-Identifier: Apache-2.0
// Attacks on the sandbox, each tried by whoever runs the tests (in a container often root), by nobody, and by root
// without capabilities. The program that tries them is attacks/sandbox_attacks.cc.
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "tests/agent/sandbox_fixture.h"

namespace millrace {
namespace {

// Something of the server's user that a tool's program must not touch.
class Secret {
 public:
  Secret() : path_(folder_.path() + "/secret") { std::ofstream(path_) << "secret"; }
  const std::string& path() const { return path_; }
  std::string Content() const {
    std::ifstream file(path_);
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  const TestFolder folder_;
  const std::string path_;
};

std::string WithSecret(Who who, const std::function<std::string(const std::string&)>& run) {
  AttackProgram();  // before the change of user
  return InProcessOf(who, [&] {
    const Secret secret;
    std::string result = run(secret.path());
    if (secret.Content() != "secret") result += ", and the secret is not what it was";
    return result;
  });
}

std::string Attack(Who who, const std::string& name) {
  return WithSecret(who, [&](const std::string& secret) { return RunAttack({name, secret}); });
}

}  // namespace

TEST_CASE("sandbox attacks: files outside the work folder are out of reach") {
  const Who who = GENERATE(Who::kCaller, Who::kNobody, Who::kBareRoot);
  if (!CanRun(who)) return;
  for (const char* name : {"ReadPasswd",
                           "ReadByDots",
                           "ReadSecret",
                           "ListRoot",
                           "ListProc",
                           "ReadThroughLink",
                           "ReadThroughFolderLink",
                           "ReadThroughHardLink",
                           "ReadEnvironOfParent",
                           "OpenMemoryOfParent",
                           "ReadEnvironOfInit",
                           "ReadThroughProcRoot",
                           "OpenOwnDescriptors",
                           "WriteSecret",
                           "EmptySecret",
                           "TruncateSecret",
                           "MakeBeside",
                           "MakeFolderBeside",
                           "RemoveSecret",
                           "RenameOut",
                           "RenameIn",
                           "ChangeMode",
                           "ChangeOwner",
                           "ChangeTimes",
                           "ChangeModeOfLibraries",
                           "WriteLibraries",
                           "WriteProgram",
                           "OpenKernelLog",
                           "OpenTerminal",
                           "MakeSharedMemoryFile",
                           "MakeFifo",
                           "MakeDevice",
                           "MakeSocketFile",
                           "LongName",
                           "SparseTerabyte"}) {
    const std::string result = Attack(who, name);
    INFO(name << ": " << result);
    CHECK(result.starts_with("blocked: E"));
    CHECK(result.find(',') == result.npos);
  }
}

TEST_CASE("sandbox attacks: no process is made, seen, signalled or changed") {
  const Who who = GENERATE(Who::kCaller, Who::kNobody, Who::kBareRoot);
  if (!CanRun(who)) return;
  for (const char* name : {"Fork",
                           "ForkByLibrary",
                           "CloneIntoUserNamespace",
                           "ExecuteShell",
                           "ExecuteSetuid",
                           "ExecuteOwnFile",
                           "ExecuteMemory",
                           "KillParent",
                           "KillAll",
                           "SignalThroughPidfd",
                           "SignalThroughOwner",
                           "Trace",
                           "ReadMemoryOfParent",
                           "LimitsOfParent",
                           "RaiseLimit",
                           "BecomeRoot",
                           "Unshare",
                           "Mount",
                           "PivotRoot",
                           "ChangeRoot",
                           "IoUring",
                           "Bpf",
                           "PerfEvents",
                           "UserFaults",
                           "Keys",
                           "LoadKernel",
                           "LoadModule",
                           "Personality",
                           "SharedMemory",
                           "MessageQueue",
                           "HugePages",
                           "SetClock",
                           "Affinity",
                           "Nice",
                           "TypeIntoTerminal"}) {
    const std::string result = Attack(who, name);
    INFO(name << ": " << result);
    CHECK((result == "blocked: EPERM" || result == "blocked: EACCES"));
  }
  // A libc must fall back to clone, whose flags can be read.
  CHECK(Attack(who, "Clone3") == "blocked: ENOSYS");
#if defined(__x86_64__)
  CHECK(Attack(who, "By32Bit") == "signal 31");
  CHECK(Attack(who, "ByX32") == "signal 31");
#endif
}

TEST_CASE("sandbox attacks: there is no socket of any kind") {
  const Who who = GENERATE(Who::kCaller, Who::kNobody, Who::kBareRoot);
  if (!CanRun(who)) return;
  for (const char* name : {"Inet", "Inet6", "Unix", "UnixPair", "Netlink", "Packet", "RawIcmp", "Vsock", "Crypto"}) {
    INFO(name);
    CHECK(Attack(who, name) == "blocked: EPERM");
  }
}

TEST_CASE("sandbox attacks: nothing of the server is inherited") {
  const Who who = GENERATE(Who::kCaller, Who::kNobody, Who::kBareRoot);
  if (!CanRun(who)) return;
  const int inherited = dup(1);  // without close-on-exec
  setenv("MILLRACE_TEST_SECRET", "in the environment", 1);
  for (const char* name : {"InheritedDescriptors", "InheritedEnvironment", "DumpCore"}) {
    INFO(name);
    CHECK(Attack(who, name) == "blocked: nothing there");
  }
  // Root without capabilities cannot become another; what it is worth shows in the attacks.
  if (who != Who::kBareRoot) CHECK(Attack(who, "KeepRoot") == "blocked: nothing there");
  unsetenv("MILLRACE_TEST_SECRET");
  close(inherited);
}

TEST_CASE("sandbox attacks: without the sandbox they get through, so it is the sandbox that stops them") {
  for (const char* name : {"ReadPasswd",
                           "ReadByDots",
                           "ReadSecret",
                           "ListRoot",
                           "ListProc",
                           "ReadThroughLink",
                           "ReadThroughFolderLink",
                           "ReadThroughHardLink",
                           "ReadEnvironOfParent",
                           "ReadThroughProcRoot",
                           "OpenOwnDescriptors",
                           "WriteSecret",
                           "EmptySecret",
                           "TruncateSecret",
                           "MakeBeside",
                           "MakeFolderBeside",
                           "RemoveSecret",
                           "RenameOut",
                           "RenameIn",
                           "ChangeMode",
                           "ChangeOwner",
                           "ChangeTimes",
                           "MakeFifo",
                           "MakeSocketFile",
                           "Fork",
                           "ForkByLibrary",
                           "Clone3",
                           "ExecuteShell",
                           "ExecuteOwnFile",
                           "ExecuteMemory",
                           "KillParent",
                           "SignalThroughPidfd",
                           "SignalThroughOwner",
                           "LimitsOfParent",
                           "RaiseLimit",
                           "Personality",
                           "Affinity",
                           "Nice",
                           "Inet",
                           "Unix",
                           "UnixPair",
                           "Netlink",
                           "InheritedEnvironment"}) {
    const Secret secret;
    INFO(name);
    CHECK(RunAttackFreely({name, secret.path()}) == "ALLOWED");
  }
}

TEST_CASE("sandbox: what a program needs goes on working") {
  const Who who = GENERATE(Who::kCaller, Who::kNobody, Who::kBareRoot);
  if (!CanRun(who)) return;
  CHECK(Attack(who, "UseFolder") == "ALLOWED");
  CHECK(Attack(who, "UseThread") == "ALLOWED");
}

}  // namespace millrace
