// SPDX-License-Identifier: Apache-2.0
// What the sandbox adds to starting a program: /bin/true and a one-line Python program, by posix_spawn and sandboxed,
// in turns. Sandboxed includes the work folder, its removal, and all pipes. Usage: sandbox_bench [rounds]
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "agent/sandbox/sandbox.h"

namespace millrace {
namespace {

bool SpawnPlainly(const std::vector<std::string>& command) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  char* environment[] = {nullptr};
  pid_t pid = 0;
  int status = 1;
  return posix_spawn(&pid, argv[0], nullptr, nullptr, argv.data(), environment) == 0 &&
         waitpid(pid, &status, 0) == pid && status == 0;
}

bool SpawnSandboxed(const std::vector<std::string>& command) {
  static const Cancellation cancellation;
  SandboxedProgram program{.command = command, .readable = {"/usr/lib", "/lib", "/lib64"}, .files = {}, .input = ""};
  const auto outcome = RunSandboxed(program, absl::Now() + absl::Minutes(1), cancellation);
  return outcome.ok() && outcome->end == SandboxEnd::kExited && outcome->code == 0;
}

void Report(const char* what, std::vector<double> ms) {
  std::sort(ms.begin(), ms.end());
  std::printf("  %-12s p50 %6.2f  p10 %6.2f  p90 %6.2f ms\n", what, ms[ms.size() / 2], ms[ms.size() / 10],
              ms[ms.size() * 9 / 10]);
}

bool Compare(const std::vector<std::string>& command, int rounds) {
  std::vector<double> plain_ms, sandboxed_ms;
  for (int round = -3; round < rounds; ++round) {
    const absl::Time begin = absl::Now();
    if (!SpawnPlainly(command)) return false;
    const absl::Time between = absl::Now();
    if (!SpawnSandboxed(command)) return false;
    const absl::Time end = absl::Now();
    if (round < 0) continue;  // warming up
    plain_ms.push_back(absl::ToDoubleMilliseconds(between - begin));
    sandboxed_ms.push_back(absl::ToDoubleMilliseconds(end - between));
  }
  std::printf("%s, %d rounds\n", command[0].c_str(), rounds);
  Report("posix_spawn", plain_ms);
  Report("sandboxed", sandboxed_ms);
  return true;
}

int Main(int rounds) {
  std::printf("tier %s, Landlock ABI %d\n", std::string(ProbeSandbox().tier()).c_str(), ProbeSandbox().landlock_abi);
  const bool is_done =
      Compare({"/bin/true"}, rounds) && Compare({"/usr/bin/python3", "-I", "-S", "-c", "pass"}, rounds);
  if (!is_done) std::printf("a program did not run\n");
  return is_done ? 0 : 1;
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) { return millrace::Main(argc > 1 ? std::atoi(argv[1]) : 200); }
