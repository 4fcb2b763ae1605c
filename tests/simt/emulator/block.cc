// SPDX-License-Identifier: Apache-2.0
#include "tests/simt/emulator/block.h"

#include <cstdio>
#include <cstring>
#include <map>
#include <tuple>

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

void Resume(Block& block, Thread* thread) {
  block.running = thread;
  threadIdx = thread->index;
}

// Gives way to whoever is next; returns when somebody has made this thread ready again.
void Yield(Block& block) {
  Thread* me = block.running;
  Thread* next = TakeReady(block);
  if (next != me) {
    block.running = next;
    SwitchFiber(&me->fiber, next != nullptr ? &next->fiber : &block.host);
  }
  Resume(block, me);
}

void Wake(Block& block, Thread& thread) {
  thread.waits_at = nullptr;
  PushReady(block, thread.number);
}

// Now and then the last to arrive lets the others go first.
void MaybeYield(Block& block) {
  if (block.order == Order::kFirst || Random(block) % 4 != 0) return;
  PushReady(block, block.running->number);
  Yield(block);
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
  if (block.num_at_barrier > 0) Fail("has returned while other threads of the block wait at __syncthreads");
  LandAllCopies(&me);
  me.is_done = true;
  warp.done |= bit;
  --block.num_live;
}

void ThreadEntry() {
  EnterFiber();
  Block& block = TheBlock();
  Thread* me = block.running;
  threadIdx = me->index;
  block.launch->run(block.launch->arguments);
  EndThread(block);
  Thread* next = TakeReady(block);
  block.running = next;
  LeaveFiber(&me->fiber, next != nullptr ? &next->fiber : &block.host);
}

void PrepareThreads(Block& block) {
  const int count = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
  block.threads.resize(count);
  block.warps.assign((count + kWarpLanes - 1) / kWarpLanes, Warp());
  block.ready_begin = block.num_ready = 0;
  block.num_live = count;
  block.num_at_barrier = block.num_votes = 0;
  block.has_failed = block.has_waited_for_grid = false;
  block.code = nullptr;
  block.sync_time = block.time++;
  for (int i = 0; i < count; ++i) {
    Thread& thread = block.threads[i];
    thread.number = i;
    thread.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
    thread.waits_at = nullptr;
    thread.is_done = false;
    thread.has_waited_for_grid = false;
    thread.copies.clear();
    thread.num_groups = 0;
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

}  // namespace

Block& TheBlock() {
  static Block block;
  return block;
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
  Block& block = TheBlock();
  Thread& me = *block.running;
  me.waits_at = "__syncthreads";
  me.where = where;
  if (block.num_live < static_cast<int>(block.threads.size())) {
    SIMT_FAIL("waits at __syncthreads, but other threads of the block have returned: " + Describe(me));
  }
  if (block.num_at_barrier == 0) {
    block.first_at_barrier = &me;
  } else if (block.first_at_barrier->where.line != where.line) {
    SIMT_FAIL("two different __syncthreads meet: " + Describe(*block.first_at_barrier) + " and " + Describe(me));
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

bool RunBlock(const LaunchRequest& request) {
  Block& block = TheBlock();
  block.launch = &request;
  if (IsSeeded()) block.order = static_cast<Order>(Random(block) % 3);
  BeginSharedMemory(request.shared_bytes);
  PrepareThreads(block);
  Thread* first = TakeReady(block);
  block.running = first;
  SwitchFiber(&block.host, &first->fiber);
  block.running = nullptr;
  if (!block.has_failed && block.num_live > 0) ReportDeadlock(block);
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

void NoteGridDependencyWait() {
  TheBlock().has_waited_for_grid = true;
  TheBlock().running->has_waited_for_grid = true;
}

}  // namespace simt
