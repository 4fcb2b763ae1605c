// SPDX-License-Identifier: Apache-2.0
#pragma once
// What every CPU op receives besides its Args: the threads to use and the instruction set chosen at start.
// Made by CpuOps, passed by const reference on the engine thread; owns nothing.
#include "kernels/cpu/thread_pool.h"
#include "kernels/device.h"

namespace millrace::cpu {

struct OpContext {
  ThreadPool& pool;
  CpuPath path;  // resolved: kReference, kAvx2 or kAvx512 (F, BW, VL, DQ, VNNI and BF16), never kAuto
};

}  // namespace millrace::cpu
