// SPDX-License-Identifier: Apache-2.0
// For builds with ThreadSanitizer only. Its own clone() takes every child for a fork's: the child makes its copy of the
// sanitizer's state anew before it calls the function. A child that shares the parent's memory (CLONE_VM, as the
// sandbox's do until they exec) would make anew what the parent is still using, and the parent stops on a failed check.
// The linker sends our calls here, and they go on to libc's function, which the sanitizer does not replace.
#include <sys/types.h>

#include <cstdarg>

extern "C" int __clone(int (*function)(void*), void* stack, int flags, void* argument, ...);

extern "C" int __wrap_clone(int (*function)(void*), void* stack, int flags, void* argument, ...) {
  va_list rest;
  va_start(rest, argument);
  auto* const parent_tid = va_arg(rest, pid_t*);
  auto* const tls = va_arg(rest, void*);
  auto* const child_tid = va_arg(rest, pid_t*);
  va_end(rest);
  return __clone(function, stack, flags, argument, parent_tid, tls, child_tid);
}
