// SPDX-License-Identifier: Apache-2.0
// Limits, ends and refusals of the sandbox. Limits end a program long before its deadline of a minute, which no test
// measures: it only turns a hang into a failure.
#include "agent/sandbox/sandbox.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstddef>
#include <thread>

#include "absl/time/clock.h"
#include "tests/agent/sandbox_fixture.h"

namespace millrace {
namespace {

std::string Limited(Who who, const std::vector<std::string>& attack, const SandboxLimits& limits = {}) {
  AttackProgram();
  return InProcessOf(who, [&] { return RunAttack(attack, limits); });
}

SandboxedProgram Program(const TestFolder& scratch, const std::string& attack) {
  return {.command = {AttackProgram(), attack},
          .readable = {"/usr/lib", "/lib", "/lib64"},
          .files = {},
          .input = "",
          .scratch_folder = scratch.path(),
          .limits = {}};
}

// A kernel without Landlock, for this process from now on.
bool HideLandlock() {
  const sock_filter code[] = {{BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
                              {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_landlock_create_ruleset},
                              {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | ENOSYS},
                              {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
  const sock_fprog program{.len = 4, .filter = const_cast<sock_filter*>(code)};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
}

}  // namespace

TEST_CASE("sandbox: every limit ends a program and leaves no process and no file") {
  const Who who = GENERATE(Who::kCaller, Who::kNobody, Who::kBareRoot);
  if (!CanRun(who)) return;
  CHECK(Limited(who, {"Spin"}, {.cpu_seconds = 1}) == "signal 9");
  CHECK(Limited(who, {"Memory"}) == "blocked: ENOMEM");
  CHECK(Limited(who, {"BigFile"}) == "blocked: EFBIG");
  CHECK(Limited(who, {"ManyDescriptors"}) == "blocked: EMFILE");
  CHECK(Limited(who, {"Flood", "1"}) == "too much output");
  CHECK(Limited(who, {"Flood", "2"}) == "too much output");
  CHECK(Limited(who, {"ManyFiles"}) == "too much disk");
  CHECK(Limited(who, {"MuchDisk"}) == "too much disk");
  CHECK(Limited(who, {"DeepFolders"}) == "too much disk");
  CHECK(Limited(who, {"ManyThreads"}) == "too many threads");
  CHECK(Limited(who, {"ClosedFolder"}) == "ALLOWED");
}

TEST_CASE("sandbox: a program that ignores signals and closed its output ends at the deadline") {
  const Who who = GENERATE(Who::kCaller, Who::kNobody, Who::kBareRoot);
  if (!CanRun(who)) return;
  AttackProgram();
  for (const char* attack : {"Sleep", "SleepWithoutOutput"}) {
    CHECK(InProcessOf(who, [&] { return RunAttack({attack}, {}, absl::Milliseconds(200)); }) == "deadline");
    CHECK(InProcessOf(who, [&] { return RunAttack({attack}, {}, absl::ZeroDuration()); }) == "deadline");
  }
}

TEST_CASE("sandbox: cancelling ends a program, before it runs or while it does") {
  if (!CanRun(Who::kCaller)) return;
  const TestFolder scratch;
  Cancellation before;
  before.Cancel();
  absl::StatusOr<SandboxOutcome> outcome =
      RunSandboxed(Program(scratch, "Sleep"), absl::Now() + absl::Minutes(1), before);
  REQUIRE(outcome.ok());
  CHECK(outcome->end == SandboxEnd::kCancelled);

  Cancellation cancellation;
  std::thread other([&] { cancellation.Cancel(); });
  outcome = RunSandboxed(Program(scratch, "Sleep"), absl::Now() + absl::Minutes(1), cancellation);
  other.join();
  REQUIRE(outcome.ok());
  CHECK(outcome->end == SandboxEnd::kCancelled);
  CHECK(scratch.IsEmpty());
}

TEST_CASE("sandbox: input is read, and need not be") {
  if (!CanRun(Who::kCaller)) return;
  const TestFolder scratch;
  const Cancellation cancellation;
  SandboxedProgram program = Program(scratch, "ReadInput");
  program.input = "hello\n";
  absl::StatusOr<SandboxOutcome> outcome = RunSandboxed(program, absl::Now() + absl::Minutes(1), cancellation);
  REQUIRE(outcome.ok());
  CHECK(outcome->output == "hello\nALLOWED\n");

  program.command[1] = "UseFolder";
  program.input = std::string(1 << 20, 'x');
  outcome = RunSandboxed(program, absl::Now() + absl::Minutes(1), cancellation);
  REQUIRE(outcome.ok());
  CHECK(outcome->output == "ALLOWED\n");
}

TEST_CASE("sandbox: several at once do not meet") {
  if (!CanRun(Who::kCaller)) return;
  const TestFolder scratch;
  const Cancellation cancellation;
  std::vector<std::string> outputs(4);
  std::vector<std::thread> threads;
  AttackProgram();
  for (std::string& output : outputs) {
    threads.emplace_back([&] {
      const auto outcome = RunSandboxed(Program(scratch, "UseFolder"), absl::Now() + absl::Minutes(1), cancellation);
      output = outcome.ok() ? outcome->output : std::string(outcome.status().message());
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& output : outputs) CHECK(output == "ALLOWED\n");
  CHECK(scratch.IsEmpty());
}

TEST_CASE("sandbox: without Landlock nothing runs, and the message names it") {
  if (!CanRun(Who::kCaller)) return;
  AttackProgram();
  const std::string message = InProcessOf(Who::kCaller, [] {
    if (!HideLandlock()) return std::string("cannot hide Landlock");
    return std::string(ProbeSandbox().tier()) + ": " + RunAttack({"UseFolder"});
  });
  CHECK(message.starts_with("none: this kernel cannot hold a tool's program; missing: Landlock (Linux 5.13"));
}

TEST_CASE("sandbox: a step that fails is named, and nothing is left") {
  if (!CanRun(Who::kCaller)) return;
  const TestFolder scratch;
  const Cancellation cancellation;
  SandboxedProgram program = Program(scratch, "UseFolder");
  program.command[0] = "/dev/null";
  absl::StatusOr<SandboxOutcome> outcome = RunSandboxed(program, absl::Now() + absl::Minutes(1), cancellation);
  CHECK(outcome.status().message() == "the sandbox was not complete: execve: Permission denied");
  program.command[0] = "/nothing/here";
  CHECK(RunSandboxed(program, absl::Now() + absl::Minutes(1), cancellation).status().code() ==
        absl::StatusCode::kNotFound);
  program.command[0] = "attacks";
  CHECK(RunSandboxed(program, absl::Now() + absl::Minutes(1), cancellation).status().code() ==
        absl::StatusCode::kInvalidArgument);
  program = Program(scratch, "UseFolder");
  program.files = {{"../outside", "x"}};
  CHECK(RunSandboxed(program, absl::Now() + absl::Minutes(1), cancellation).status().code() ==
        absl::StatusCode::kInvalidArgument);
  CHECK(scratch.IsEmpty());
}

}  // namespace millrace
