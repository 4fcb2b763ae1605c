// SPDX-License-Identifier: Apache-2.0
#pragma once
// Stops the process with a sentence when scheduler/ breaks its own invariant. Never reachable from a client's bytes.
// A twin of the kernels' check: this room includes no other.
#include <cstdio>
#include <cstdlib>

namespace millrace {

[[noreturn]] inline void SchedulerCheckFailed(const char* file, int line, const char* sentence) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, sentence);
  std::fflush(stderr);
  std::abort();
}

}  // namespace millrace

#define MILLRACE_SCHEDULER_CHECK(condition, sentence) \
  ((condition) ? (void)0 : ::millrace::SchedulerCheckFailed(__FILE__, __LINE__, sentence))
