// SPDX-License-Identifier: Apache-2.0
#pragma once
// Checks for our own faults: a broken precondition stops the process with a sentence.
// Never reachable from bytes a client sent; the world's faults are absl::Status.
#include <cstdio>
#include <cstdlib>

namespace millrace {

[[noreturn]] inline void CheckFailed(const char* file, int line, const char* condition, const char* sentence) {
  std::fprintf(stderr, "%s:%d: check failed: %s: %s\n", file, line, condition, sentence);
  std::fflush(stderr);
  std::abort();
}

}  // namespace millrace

#define MILLRACE_CHECK(condition, sentence) \
  ((condition) ? (void)0 : ::millrace::CheckFailed(__FILE__, __LINE__, #condition, sentence))

#ifdef NDEBUG
#define MILLRACE_DCHECK(condition, sentence) ((void)0)
#else
#define MILLRACE_DCHECK(condition, sentence) MILLRACE_CHECK(condition, sentence)
#endif
