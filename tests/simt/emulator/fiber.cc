// SPDX-License-Identifier: Apache-2.0
#include "tests/simt/emulator/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#ifdef SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef __x86_64__
// simt_switch_stack(&saved, next): what a call must preserve goes on this stack, then the same comes from the other.
asm(R"(
.text
.globl simt_switch_stack
.type simt_switch_stack, @function
simt_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  retq
.size simt_switch_stack, .-simt_switch_stack
)");
extern "C" void simt_switch_stack(void** saved, void* next);
#endif

namespace simt {
namespace {

// The launching thread's stack, as AddressSanitizer tells it at the first switch away.
[[maybe_unused]] struct {
  const void* bottom = nullptr;
  size_t num_bytes = 0;
} own_stack;

void Announce([[maybe_unused]] void** fake_stack, [[maybe_unused]] const Fiber& to) {
#ifdef SIMT_ASAN
  __sanitizer_start_switch_fiber(fake_stack, to.stack != nullptr ? to.stack : own_stack.bottom,
                                 to.stack != nullptr ? Stacks::Bytes() : own_stack.num_bytes);
#endif
}
void Arrive([[maybe_unused]] void* fake_stack) {
#ifdef SIMT_ASAN
  const void* bottom;
  size_t num_bytes;
  __sanitizer_finish_switch_fiber(fake_stack, &bottom, &num_bytes);
  if (fake_stack == nullptr && own_stack.bottom == nullptr) own_stack = {bottom, num_bytes};
#endif
}

void Jump(Fiber* from, Fiber* to) {
#ifdef __x86_64__
  simt_switch_stack(&from->stack_pointer, to->stack_pointer);
#else
  swapcontext(&from->context, &to->context);
#endif
}

}  // namespace

size_t Stacks::Bytes() {
#ifdef SIMT_ASAN
  return 512 * 1024;  // red zones make frames larger
#else
  return 128 * 1024;
#endif
}

char* Stacks::Get(size_t index) {
  while (stacks_.size() <= index) {
    const size_t page_bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void* memory =
        mmap(nullptr, Bytes() + page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page_bytes, PROT_NONE) != 0) {
      std::fprintf(stderr, "simt: no memory for the stacks of a block's threads\n");
      std::abort();
    }
    stacks_.push_back(static_cast<char*>(memory) + page_bytes);
  }
  return stacks_[index];
}

void Stacks::Forget() {
#ifdef SIMT_ASAN
  for (char* stack : stacks_) __asan_unpoison_memory_region(stack, Bytes());
#endif
}

void PrepareFiber(Fiber* fiber, void (*entry)()) {
  fiber->fake_stack = nullptr;
#ifdef __x86_64__
  // Six registers, the entry's address, and a slot that leaves the stack as a call would.
  void** top = reinterpret_cast<void**>(fiber->stack + Stacks::Bytes()) - 8;
  for (int i = 0; i < 8; ++i) top[i] = nullptr;
  top[6] = reinterpret_cast<void*>(entry);
  fiber->stack_pointer = top;
#else
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = fiber->stack;
  fiber->context.uc_stack.ss_size = Stacks::Bytes();
  fiber->context.uc_link = nullptr;
  makecontext(&fiber->context, entry, 0);
#endif
}

void SwitchFiber(Fiber* from, Fiber* to) {
  Announce(&from->fake_stack, *to);
  Jump(from, to);
  Arrive(from->fake_stack);
}

void EnterFiber() { Arrive(nullptr); }

void LeaveFiber(Fiber* from, Fiber* to) {
  Announce(nullptr, *to);
  Jump(from, to);
  std::abort();  // nobody comes back
}

}  // namespace simt
