// SPDX-License-Identifier: Apache-2.0
// Plain loads and stores: kernels are compiled with -fsanitize=thread, and what the compiler then calls before each
// access is defined here instead of in that sanitizer's runtime. Not linked into builds with a sanitizer of their own.
#include <cstring>

#include "tests/simt/emulator/block.h"

namespace simt {
namespace {

inline void See(const void* address, size_t num_bytes, Access access, const void* code) {
  const Block& block = TheBlock();
  if (block.running == nullptr) return;  // host code
  const char* at = static_cast<const char*>(address);
  const char* stack = block.running->fiber.stack;
  if (at >= stack && at < stack + Stacks::Bytes()) return;
  if (IsShared(address, num_bytes)) {
    TheBlock().code = code;
    NoteAccess(address, num_bytes, access);
    TheBlock().code = nullptr;
  } else {
    CheckDeviceAccess(address, num_bytes, access, code);
  }
}

}  // namespace
}  // namespace simt

#define SIMT_SEE(address, num_bytes, access) \
  simt::See(address, num_bytes, simt::Access::access, __builtin_return_address(0))
#define SIMT_HOOKS(num_bytes)                                                                     \
  void __tsan_read##num_bytes(void* address) { SIMT_SEE(address, num_bytes, kRead); }             \
  void __tsan_write##num_bytes(void* address) { SIMT_SEE(address, num_bytes, kWrite); }           \
  void __tsan_unaligned_read##num_bytes(void* address) { SIMT_SEE(address, num_bytes, kRead); }   \
  void __tsan_unaligned_write##num_bytes(void* address) { SIMT_SEE(address, num_bytes, kWrite); } \
  void __tsan_read_write##num_bytes(void* address) { SIMT_SEE(address, num_bytes, kWrite); }      \
  void __tsan_unaligned_read_write##num_bytes(void* address) { SIMT_SEE(address, num_bytes, kWrite); }

extern "C" {
SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void* __tsan_memcpy(void* to, const void* from, size_t num_bytes) {
  SIMT_SEE(from, num_bytes, kRead);
  SIMT_SEE(to, num_bytes, kWrite);
  return std::memcpy(to, from, num_bytes);
}
void* __tsan_memmove(void* to, const void* from, size_t num_bytes) {
  SIMT_SEE(from, num_bytes, kRead);
  SIMT_SEE(to, num_bytes, kWrite);
  return std::memmove(to, from, num_bytes);
}
void* __tsan_memset(void* to, int value, size_t num_bytes) {
  SIMT_SEE(to, num_bytes, kWrite);
  return std::memset(to, value, num_bytes);
}
}
