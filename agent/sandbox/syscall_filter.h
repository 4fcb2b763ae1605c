// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/filter.h>

#include <vector>

namespace millrace {

// What a sandboxed program may ask of the kernel: reading and writing files it can open, memory, threads, time. Not:
// new processes, sockets, signals to others, changes of owner, mode or times of files, and all that is rarely looked
// at. Those answer EPERM; clone3, whose arguments a filter cannot read, ENOSYS, so that libraries fall back to clone; a
// call by another ABI (32-bit, x32) kills the process. Made before the fork, where allocating is allowed.
// Empty where this architecture is not known.
std::vector<sock_filter> MakeSyscallFilter();

}  // namespace millrace
