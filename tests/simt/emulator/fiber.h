// SPDX-License-Identifier: Apache-2.0
#pragma once
// Stacks that one OS thread switches between: one per CUDA thread of the running block, and the launching thread's own.
#include <cstddef>
#include <vector>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif

namespace simt {

struct Fiber {
  void* stack_pointer = nullptr;  // of a fiber that does not run
  char* stack = nullptr;          // lowest address; null for the launching thread's own
  void* fake_stack = nullptr;     // AddressSanitizer's
#ifndef __x86_64__
  ucontext_t context = {};
#endif
};

// Stacks are mapped once, with a page that faults below each, and used again by every block.
class Stacks {
 public:
  char* Get(size_t index);
  // After fibers were left in the middle of what they did: nothing on their stacks counts any more.
  void Forget();
  static size_t Bytes();

 private:
  std::vector<char*> stacks_;
};

// Makes the fiber enter `entry`, which never returns, at the next switch to it.
void PrepareFiber(Fiber* fiber, void (*entry)());
void SwitchFiber(Fiber* from, Fiber* to);
// The first thing in a fiber's entry; `from` came here.
void EnterFiber();
// The last: `from` is over.
[[noreturn]] void LeaveFiber(Fiber* from, Fiber* to);

}  // namespace simt
