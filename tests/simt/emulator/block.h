// SPDX-License-Identifier: Apache-2.0
#pragma once
// The emulator: kernels compiled as C++ run here, one block after another, each thread of a block on a stack of its
// own. A thread runs until it must wait for others; who runs next is drawn from the seed. Waiting for a warp or for
// the block is checked as it happens, and whatever can never end is reported. docs/testing-kernels.md says what this
// finds and what it cannot.
//
// Without CMake, one test:
//   clang++-19 -std=c++20 -O1 -g1 -Itests/simt/include -I. -DMILLRACE_SIMT -fsanitize=thread
//     -mllvm -tsan-instrument-atomics=0 -mllvm -tsan-instrument-func-entry-exit=0 -c -x c++ kernels/cuda/X.cu  (and
//     tests/cuda/X_test.cc); the same without the last three options for tests/simt/emulator/*.cc and
//     tests/cuda/harness_main.cc; then link all of it, without any -fsanitize.
#include <cstdint>
#include <string>
#include <vector>

#include "simt_core.h"
#include "tests/simt/emulator/fiber.h"

namespace simt {

constexpr int kWarpLanes = 32;
constexpr int kMaxBlockThreads = 1024;

// An asynchronous copy of a thread.
struct PendingCopy {
  void* shared;
  const void* global;
  uint8_t num_bytes;
  bool is_valid, has_landed;
  uint32_t group;
};

struct Thread {
  Fiber fiber;
  uint3 index;
  int number;  // in the block
  const char* waits_at = nullptr;
  Where where = {};
  uint32_t mask = 0;
  void* argument = nullptr;
  bool is_done = false;
  bool vote = false;
  bool has_waited_for_grid = false;
  std::vector<PendingCopy> copies;
  uint32_t num_groups = 0;  // committed
};

struct Warp {
  uint32_t present = 0, waiting = 0, done = 0;  // bits of lanes
  uint32_t sync_time = 0;
};

// In what order threads that could run do run.
enum class Order : uint8_t { kFirst, kLast, kAny };

// The block that runs. One for the process: launches of several OS threads come one by one.
struct Block {
  const LaunchRequest* launch = nullptr;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Thread* running = nullptr;   // null: host code
  const void* code = nullptr;  // of the plain access that is being noted
  Fiber host;
  Order order = Order::kFirst;
  uint64_t random = 0;  // state of the generator
  // Threads that could run, a ring.
  uint16_t ready[kMaxBlockThreads * 2];
  uint32_t ready_begin = 0, num_ready = 0;
  int num_live = 0, num_at_barrier = 0, num_votes = 0;
  const Thread* first_at_barrier = nullptr;
  int last_votes = 0;
  // Counts on with every meeting: accesses before the last one of their block or warp are in order with what follows.
  uint32_t time = 1, sync_time = 0;
  bool has_failed = false;
  bool has_waited_for_grid = false;
};
Block& TheBlock();

uint64_t Random(Block& block);
bool IsSeeded();
// Runs the kernel for the block of blockIdx; false after a report.
bool RunBlock(const LaunchRequest& request);

// Keeps and prints "kernel, block, thread: what". Whoever runs a thread leaves with Abandon, which never returns: two
// statements, because nothing on the thread's stack is destroyed any more, the text's string included.
void Report(const std::string& what);
[[noreturn]] void Abandon();
#define SIMT_FAIL(what) \
  do {                  \
    Report(what);       \
    Abandon();          \
  } while (false)
std::string Describe(const Thread& thread);
// The function and line of an address in this program, as well as can be found out.
std::string DescribeCode(const void* address);

// shared_memory.cc: memory of the next block, filled with NaN; its shadow says who touched what last.
void BeginSharedMemory(size_t num_bytes);
void LandAllCopies(Thread* thread);
// memory.cc: an access of device memory by a kernel that no allocation covers, or that comes before the wait of a
// dependent launch and may meet what kernels before it do, reported.
void CheckDeviceAccess(const void* address, size_t num_bytes, Access access, const void* code);
// Whatever was written so far is there for all that follows: a launch that is not dependent begins, or a copy.
void EndDependencies();

}  // namespace simt
