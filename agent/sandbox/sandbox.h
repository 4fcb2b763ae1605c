// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/cancellation.h"

// Runs one program that nobody trusts, as a child process behind Landlock, a seccomp allow-list, resource limits, an
// empty environment and no descriptors but its own three. What this keeps out and what it does not: docs/sandbox.md.
namespace millrace {

// What the kernel offers, asked anew at each call.
struct SandboxSupport {
  int landlock_abi = 0;              // 0: none
  std::vector<std::string> missing;  // what RunSandboxed cannot do without, in words; empty where it can run
  std::vector<std::string> weaker;   // second walls that this kernel lacks; the first ones stand

  bool is_complete() const { return missing.empty(); }
  std::string_view tier() const { return is_complete() ? "landlock+seccomp" : "none"; }
};
SandboxSupport ProbeSandbox();

struct SandboxLimits {
  int64_t cpu_seconds = 10;
  int64_t memory_bytes = 512 << 20;  // address space, libraries included
  int64_t file_bytes = 16 << 20;     // each file
  int64_t work_bytes = 64 << 20;     // all files of the work folder together; looked at several times a second
  int64_t work_files = 4096;         // the same, their number
  int64_t open_files = 64;
  int64_t threads = 32;             // looked at several times a second
  int64_t output_bytes = 64 << 10;  // stdout and stderr together
};

struct SandboxedProgram {
  std::vector<std::string> command;   // the first is an absolute path, the only file that may be executed
  std::vector<std::string> readable;  // files, and folders with all that is in them; missing ones are left out
  std::vector<std::pair<std::string, std::string>> files;  // name and content, put into the work folder; plain names
  std::string input;                                       // stdin
  std::string scratch_folder = "/tmp";                     // where the work folder is made, and removed
  SandboxLimits limits;
};

enum class SandboxEnd {
  kExited,     // by itself; `code` is its exit code
  kSignalled,  // `code` is the signal: SIGKILL beyond cpu_seconds
  kDeadline,
  kCancelled,
  kTooMuchOutput,
  kTooMuchDisk,
  kTooManyThreads,
};

struct SandboxOutcome {
  SandboxEnd end = SandboxEnd::kExited;
  int code = 0;
  std::string output;  // stdout
  std::string errors;  // stderr
};

// Blocks until the program is over, or ends it: at the deadline, on cancellation, or beyond a limit. When it returns,
// the process and its work folder are gone. The program starts in its work folder, which is also its HOME and TMPDIR.
// Run by root that has the privileges, it becomes uid 65534. FailedPrecondition, naming what is missing, where the
// kernel cannot hold it; Internal where a step failed: it never runs with less. Any thread; not after the caller's
// own fork().
absl::StatusOr<SandboxOutcome> RunSandboxed(const SandboxedProgram& program, absl::Time deadline,
                                            const Cancellation& cancellation);

}  // namespace millrace
