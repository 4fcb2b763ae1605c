// SPDX-License-Identifier: Apache-2.0
#include "tests/simt/emulator/block.h"

#include <cstdio>
#include <cstring>
#include <map>
#include <tuple>

#include "tests/simt/emulator/faults.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace simt {
namespace {

Stacks& TheStacks() {
  static Stacks stacks;
  return stacks;
}

void PushReady(Block& block, int number) {
  constexpr uint32_t kCapacity = kMaxBlockThreads * 2;
  block.ready[(block.ready_begin + block.num_ready++) % kCapacity] = static_cast<uint16_t>(number);
}

// The thread that runs next; null when nobody can.
Thread* TakeReady(Block& block) {
  constexpr uint32_t kCapacity = kMaxBlockThreads * 2;
  if (block.num_ready == 0) return nullptr;
  const uint32_t first = block.ready_begin, last = (first + block.num_ready - 1) % kCapacity;
  --block.num_ready;
  if (block.order == Order::kLast) return &block.threads[block.ready[last]];
  if (block.order == Order::kAny) {
    const uint32_t chosen = (first + Random(block) % (block.num_ready + 1)) % kCapacity;
    std::swap(block.ready[first], block.ready[chosen]);
  }
  block.ready_begin = (first + 1) % kCapacity;
  return &block.threads[block.ready[first]];
}

// Copies arrive late: when nobody can go on without them. Null: nothing will ever happen again.
Thread* NextThread(Block& block) {
  Thread* next = TakeReady(block);
  while (next == nullptr && LandBulkCopy()) next = TakeReady(block);
  return next;
}

void Resume(Block& block, Thread* thread) {
  block.running = thread;
  threadIdx = thread->index;
  blockIdx.x += static_cast<unsigned>(thread->rank - SelectedRank());
  SelectSharedMemory(thread->rank);
}

// Gives way to whoever is next; returns when somebody has made this thread ready again.
void Yield(Block& block) {
  Thread* me = block.running;
  Thread* next = NextThread(block);
  if (next != me) {
    block.running = next;
    SwitchFiber(&me->fiber, next != nullptr ? &next->fiber : &block.host);
  }
  Resume(block, me);
}

void EndThread(Block& block) {
  Thread& me = *block.running;
  Warp& warp = block.warps[me.number / kWarpLanes];
  const uint32_t bit = 1u << me.number % kWarpLanes;
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    if ((warp.waiting >> lane & 1) == 0) continue;
    const Thread& other = block.threads[me.number / kWarpLanes * kWarpLanes + lane];
    if (other.mask & bit) SIMT_FAIL("has returned, but " + Describe(other) + " waits for it");
  }
  if (block.num_at_barrier > 0) Fail("has returned while other threads wait at a barrier of all");
  if (HasPendingProducts(me.number / kWarpLanes)) Fail("has returned without waiting for its products");
  LandAllCopies(&me);
  me.is_done = true;
  warp.done |= bit;
  --block.num_live;
  --block.num_live_of_rank[me.rank];
}

void ThreadEntry() {
  EnterFiber();
  Block& block = TheBlock();
  Thread* me = block.running;
  Resume(block, me);
  block.launch->run(block.launch->arguments);
  EndThread(block);
  Thread* next = NextThread(block);
  block.running = next;
  LeaveFiber(&me->fiber, next != nullptr ? &next->fiber : &block.host);
}

void PrepareThreads(Block& block, int num_ranks) {
  const int block_threads = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
  const int count = block_threads * num_ranks;
  block.threads.resize(count);
  for (int rank = 0; rank < num_ranks; ++rank) block.num_live_of_rank[rank] = block_threads;
  for (Warp& warp : block.warps) warp.present = warp.waiting = warp.done = 0;
  block.ready_begin = block.num_ready = 0;
  block.num_live = count;
  block.num_at_barrier = block.num_votes = 0;
  block.has_failed = block.has_waited_for_grid = false;
  block.code = nullptr;
  block.sync_time = block.begin_time = block.time++;
  for (int i = 0; i < count; ++i) {
    Thread& thread = block.threads[i];
    const unsigned in_block = static_cast<unsigned>(i % block_threads);
    thread.number = i;
    thread.rank = i / block_threads;
    thread.index = {in_block % blockDim.x, in_block / blockDim.x % blockDim.y, in_block / (blockDim.x * blockDim.y)};
    thread.waits_at = nullptr;
    thread.is_done = false;
    thread.has_waited_for_grid = thread.has_let_next_start = false;
    thread.copies.clear();
    thread.num_groups = 0;
    thread.fence_time = 0;
    thread.fiber.stack = TheStacks().Get(i);
    PrepareFiber(&thread.fiber, ThreadEntry);
    block.warps[i / kWarpLanes].present |= 1u << i % kWarpLanes;
    PushReady(block, i);
  }
}

// Nobody can run: says who waits where.
void ReportDeadlock(Block& block) {
  std::map<std::tuple<std::string, std::string, int>, std::pair<int, const Thread*>> places;
  for (const Thread& thread : block.threads) {
    if (thread.waits_at == nullptr) continue;
    auto& place = places[{thread.waits_at, thread.where.file, thread.where.line}];
    if (place.first++ == 0) place.second = &thread;
  }
  std::string text = "no thread can go on:";
  for (const auto& [key, place] : places)
    text += "\n  " + std::to_string(place.first) + " as " + Describe(*place.second);
  block.running = nullptr;
  Report(text);
}

// Two lanes met that do not agree on what they wait for.
void CheckAgreement(Block& block, const Thread& me, const Thread& other) {
  if (other.mask == me.mask && std::strcmp(other.waits_at, me.waits_at) == 0) return;
  char text[96];
  std::snprintf(text, sizeof(text), " with mask %08x, of this thread %08x: ", other.mask, me.mask);
  SIMT_FAIL("lanes of a warp do not meet: " + Describe(me) + ", but " + Describe(other) + text + "they never will");
}

// Waits for every thread there is.
int MeetAll(const char* name, bool value, Where where) {
  Block& block = TheBlock();
  Thread& me = *block.running;
  me.waits_at = name;
  me.where = where;
  if (block.num_live < static_cast<int>(block.threads.size())) {
    SIMT_FAIL(std::string("waits at ") + name + ", but other threads have returned: " + Describe(me));
  }
  if (block.num_at_barrier == 0) {
    block.first_at_barrier = &me;
  } else if (block.first_at_barrier->where.line != where.line) {
    SIMT_FAIL(std::string("two different ") + name + " meet: " + Describe(*block.first_at_barrier) + " and " +
              Describe(me));
  }
  block.num_votes += value ? 1 : 0;
  if (++block.num_at_barrier < static_cast<int>(block.threads.size())) {
    Yield(block);
    return block.last_votes;
  }
  block.last_votes = block.num_votes;
  block.num_at_barrier = block.num_votes = 0;
  block.sync_time = block.time++;
  for (Thread& thread : block.threads) {
    if (&thread != &me) Wake(block, thread);
  }
  me.waits_at = nullptr;
  const int votes = block.last_votes;
  MaybeYield(block);
  return votes;
}

}  // namespace

Block& TheBlock() {
  static Block block;
  return block;
}

void Wake(Block& block, Thread& thread) {
  thread.waits_at = nullptr;
  PushReady(block, thread.number);
}

void Pause(const char* what, Where where) {
  Block& block = TheBlock();
  block.running->waits_at = what;
  block.running->where = where;
  Yield(block);
}

// Now and then the last to arrive lets the others go first.
void MaybeYield(Block& block) {
  if (block.order == Order::kFirst || Random(block) % 4 != 0) return;
  PushReady(block, block.running->number);
  Yield(block);
}

int ThisLane() { return TheBlock().running->number % kWarpLanes; }

void MeetWarp(const char* name, uint32_t mask, void* argument, void (*execute)(const Lanes&), Where where) {
  Block& block = TheBlock();
  Thread& me = *block.running;
  Warp& warp = block.warps[me.number / kWarpLanes];
  Thread* const lanes = &block.threads[me.number / kWarpLanes * kWarpLanes];
  const int lane = me.number % kWarpLanes;
  me.waits_at = name;
  me.where = where;
  me.mask = mask;
  me.argument = argument;
  if ((mask >> lane & 1) == 0) SIMT_FAIL(std::string("is not in its own mask of ") + name);
  const uint32_t needed = mask & warp.present;
  if (needed & warp.done) {
    SIMT_FAIL("waits for lane " + std::to_string(__builtin_ctz(needed & warp.done)) +
              ", which has returned: " + Describe(me));
  }
  if (warp.waiting & needed) CheckAgreement(block, me, lanes[__builtin_ctz(warp.waiting & needed)]);
  for (uint32_t rest = warp.waiting & ~needed; rest != 0; rest &= rest - 1) {
    const Thread& other = lanes[__builtin_ctz(rest)];
    if (other.mask >> lane & 1) CheckAgreement(block, me, other);
  }
  warp.waiting |= 1u << lane;
  if ((warp.waiting & needed) != needed) return Yield(block);

  Lanes all = {{}, needed};
  for (uint32_t rest = needed; rest != 0; rest &= rest - 1) {
    all.arguments[__builtin_ctz(rest)] = lanes[__builtin_ctz(rest)].argument;
  }
  execute(all);
  warp.waiting &= ~needed;
  warp.sync_time = block.time++;
  for (uint32_t rest = needed & ~(1u << lane); rest != 0; rest &= rest - 1) Wake(block, lanes[__builtin_ctz(rest)]);
  me.waits_at = nullptr;
  MaybeYield(block);
}

int MeetBlock(bool value, Where where) {
  if (TheBlock().launch->cluster_blocks > 1) Fail("waits at __syncthreads: in clusters only MeetCluster is emulated");
  return MeetAll("__syncthreads", value, where);
}

void MeetCluster(Where where) {
  if (IsFaulty({"ClusterSync", where.line}, FaultKind::kSkipped)) return;
  MeetAll("ClusterSync", false, where);
}

bool RunBlock(const LaunchRequest& request) {
  Block& block = TheBlock();
  block.launch = &request;
  if (IsSeeded()) block.order = static_cast<Order>(Random(block) % 3);
  BeginSharedMemory(request.shared_bytes, request.cluster_blocks);
  BeginBarriers();
  BeginBulkCopies();
  BeginProducts();
  PrepareThreads(block, request.cluster_blocks);
  Thread* first = TakeReady(block);
  block.running = first;
  SwitchFiber(&block.host, &first->fiber);
  block.running = nullptr;
  if (!block.has_failed && block.num_live > 0) ReportDeadlock(block);
  if (!block.has_failed && LandBulkCopy()) Report("has ended while a bulk copy is on its way");
  if (!block.has_failed && request.is_dependent && !block.has_waited_for_grid) {
    Report("was launched as dependent and never called GridDependencyWait");
  }
  if (block.has_failed) TheStacks().Forget();
  return !block.has_failed;
}

void Fail(const char* what) { SIMT_FAIL(what); }
void Abandon() {
  Block& block = TheBlock();
  Thread* me = block.running;
  block.running = nullptr;
  SwitchFiber(&me->fiber, &block.host);
  __builtin_unreachable();  // a launch that has failed is not resumed
}

void CheckRank(int rank) {
  const Block& block = TheBlock();
  if (rank < 0 || rank >= block.launch->cluster_blocks) Fail("speaks to a block that its cluster does not have");
  if (block.num_live_of_rank[rank] == 0) Fail("speaks to a block of its cluster whose threads have all returned");
}

void NoteGridDependencyWait() {
  TheBlock().has_waited_for_grid = true;
  TheBlock().running->has_waited_for_grid = true;
}
void NoteGridDependencyLaunch() { TheBlock().running->has_let_next_start = true; }

}  // namespace simt
