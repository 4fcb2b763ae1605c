// SPDX-License-Identifier: Apache-2.0
#pragma once
// The emulator: kernels compiled as C++ run here, one block (or cluster of blocks) after another, each thread on a
// stack of its own. A thread runs until it must wait for others; who runs next is drawn from the seed. Waiting for a
// warp or for the block is checked as it happens, and whatever can never end is reported. docs/testing-kernels.md says
// what this finds and what it cannot.
//
// Without CMake, one test:
//   clang++-19 -std=c++20 -O1 -g1 -Itests/simt/include -I. -DMILLRACE_SIMT -fsanitize=thread
//     -mllvm -tsan-instrument-atomics=0 -mllvm -tsan-instrument-func-entry-exit=0 -c -x c++ kernels/cuda/X.cu  (and
//     tests/cuda/X_test.cc); the same without the last three options for tests/simt/emulator/*.cc and
//     tests/cuda/harness_main.cc; then link all of it, without any -fsanitize.
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "simt_core.h"
#include "tests/simt/emulator/fiber.h"

namespace simt {

constexpr int kWarpLanes = 32;
constexpr int kWarpgroupThreads = 128;
constexpr int kMaxBlockThreads = 1536;  // of a cluster's blocks together; a block alone has at most 1024
constexpr int kMaxClusterBlocks = 4;
constexpr int kMaxWarps = kMaxBlockThreads / kWarpLanes;
constexpr int kAsyncAgent = kMaxBlockThreads;  // who writes what bulk copies bring, where a thread's number is asked

// For every thread and the agent: what it did up to this time is in order before whoever has the clock.
using Clock = std::array<uint32_t, kMaxBlockThreads + 1>;

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
  int number;  // in the block; in a cluster, its blocks' threads come one block after the other
  int rank;    // of its block in the cluster
  const char* waits_at = nullptr;
  Where where = {};
  uint32_t mask = 0;
  void* argument = nullptr;
  bool is_done = false;
  bool vote = false;
  bool has_waited_for_grid = false;
  bool has_let_next_start = false;
  std::vector<PendingCopy> copies;
  uint32_t num_groups = 0;  // committed
  uint32_t fence_time = 0;  // of the last FenceAsyncProxy
};

struct Warp {
  uint32_t present = 0, waiting = 0, done = 0;  // bits of lanes
  uint32_t sync_time = 0;
  Clock known = {};  // by barriers in shared memory and named ones; times only grow, so nothing is ever cleared
};

// In what order threads that could run do run.
enum class Order : uint8_t { kFirst, kLast, kAny };

// The block that runs, or the cluster as if it were one. One for the process: launches of several OS threads come one
// by one.
struct Block {
  const LaunchRequest* launch = nullptr;
  int num_live_of_rank[kMaxClusterBlocks] = {};
  std::vector<Thread> threads;
  std::vector<Warp> warps{kMaxWarps};
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
  uint32_t time = 1, sync_time = 0, begin_time = 0;
  bool has_failed = false;
  bool has_waited_for_grid = false;
};
Block& TheBlock();

// The running thread's cluster has a block of this rank, with threads that have not returned.
void CheckRank(int rank);

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

// shared_memory.cc: memory of the next blocks, filled with NaN; its shadow says who touched what last.
void BeginSharedMemory(size_t num_bytes, int num_ranks);
// Whose memory the static arrays, and addresses as instructions have them, are from here on.
void SelectSharedMemory(int rank);
int SelectedRank();
void LandAllCopies(Thread* thread);
// memory.cc: an access of device memory by a kernel that no allocation covers, or that comes before the wait of a
// dependent launch and may meet what kernels before it do, reported.
void CheckDeviceAccess(const void* address, size_t num_bytes, Access access, const void* code);
// Whatever was written so far is there for all that follows: a launch that is not dependent begins, or a copy.
void EndDependencies();
// The selected block's dynamic memory, or that of another in the cluster, by the addresses that instructions have; null
// outside it.
void* SharedPointer(uint32_t address, size_t num_bytes);
void* SharedPointerOf(int rank, uint32_t address, size_t num_bytes);
bool IsOrdered(const Block& block, uint32_t time, int earlier, int now);
// An asynchronous copy of the agent's: begins with the thread's right to write, and ends.
void BeginAgentCopy(void* shared, size_t num_bytes);
void EndAgentCopy(void* shared, const void* global, size_t num_bytes);  // from null: zeros
// An operand of product `id` (from 1 on, of the running block) by the running thread's warpgroup.
void NoteProductRead(uint32_t id, const void* address, size_t num_bytes);

// block.cc: the running thread waits until somebody wakes it.
void Pause(const char* what, Where where);
void Wake(Block& block, Thread& thread);
void MaybeYield(Block& block);
// barrier.cc: the running thread's work so far joins the clock; its warp learns of what the clock knows.
void JoinClock(Clock& clock);
void LearnClock(const Clock& clock);
void BeginBarriers();
// bulk_copy.cc: lands one copy, if there is any.
bool LandBulkCopy();
void AddBarrierBytes(int rank, uint64_t* barrier, int64_t num_bytes);
void BeginBulkCopies();
// product.cc
void BeginProducts();
// What is wrong with a write by thread `now` to what product `id` reads; empty: nothing.
const char* ProductFault(uint32_t id, int now);
bool HasPendingProducts(int warp);

}  // namespace simt
