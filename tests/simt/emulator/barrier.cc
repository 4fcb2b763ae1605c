// SPDX-License-Identifier: Apache-2.0
// Barriers that count arrivals and bytes, and barriers of some of a block's warps. What a thread did before it arrives
// is in order before whoever finds the phase over: clocks carry that.
#include <simt_ptx_barrier.h>

#include <algorithm>
#include <map>
#include <utility>

#include "tests/simt/emulator/block.h"
#include "tests/simt/emulator/faults.h"

namespace simt {
namespace {

static_assert(kMaxWarps <= 64, "a bit each");

struct Barrier {
  int num_arrivals = 0;  // of a phase
  int num_missing = 0;
  int64_t num_bytes = 0;  // announced and not come
  uint32_t phase = 0;
  bool is_fenced = false;  // bulk copies may report to it
  int owner = 0;
  Clock joined = {}, over = {};  // of this phase; of all that are over
  uint64_t learned = 0;          // warps that know of `over`
  std::vector<Thread*> waiting;
};
struct NamedBarrier {
  int num_threads = 0, num_arrived = 0;
  Clock joined = {};
  std::vector<Thread*> waiting;
};
constexpr int kNumNamedBarriers = 16;

struct Barriers {
  std::map<std::pair<int, const void*>, Barrier> counting;  // by the rank of their block in the cluster, and address
  NamedBarrier named[kMaxClusterBlocks][kNumNamedBarriers];
};
Barriers& TheBarriers() {
  static Barriers barriers;
  return barriers;
}

Barrier& Find(int rank, uint64_t* barrier) {
  const auto found = TheBarriers().counting.find({rank, barrier});
  if (found == TheBarriers().counting.end()) Fail("uses a barrier that nobody has initialised");
  return found->second;
}

// Of the threads there are, and the agent.
void Join(Clock& clock, const Clock& other) {
  const size_t num_threads = TheBlock().threads.size();
  for (size_t i = 0; i < num_threads; ++i) clock[i] = std::max(clock[i], other[i]);
  clock[kAsyncAgent] = std::max(clock[kAsyncAgent], other[kAsyncAgent]);
}

void EndPhaseIfOver(Barrier& barrier) {
  if (barrier.num_missing > 0 || barrier.num_bytes != 0) return;
  ++barrier.phase;
  barrier.num_missing = barrier.num_arrivals;
  Join(barrier.over, barrier.joined);
  barrier.learned = 0;
  for (Thread* thread : barrier.waiting) Wake(TheBlock(), *thread);
  barrier.waiting.clear();
}

void LandSometimes(Block& block) {
  if (IsSeeded() && block.order != Order::kFirst && Random(block) % 4 == 0) LandBulkCopy();
}

void ArriveAt(Barrier& barrier, uint32_t num_bytes) {
  if (--barrier.num_missing < 0) Fail("arrives at a barrier more often than its phase has arrivals");
  barrier.num_bytes += num_bytes;
  JoinClock(barrier.joined);
  EndPhaseIfOver(barrier);
  LandSometimes(TheBlock());
  MaybeYield(TheBlock());
}

}  // namespace

void BeginBarriers() {
  Barriers& barriers = TheBarriers();
  barriers.counting.clear();
  for (auto& named : barriers.named) {
    for (NamedBarrier& barrier : named) {
      barrier.num_arrived = 0;
      barrier.waiting.clear();
    }
  }
}

// Of its own warp, the thread vouches for what came before their last meeting; of itself, for everything.
void JoinClock(Clock& clock) {
  Block& block = TheBlock();
  const int me = block.running->number, first = me / kWarpLanes * kWarpLanes;
  const Warp& warp = block.warps[me / kWarpLanes];
  Join(clock, warp.known);
  for (int lane = first; lane < first + kWarpLanes; ++lane) clock[lane] = std::max(clock[lane], warp.sync_time);
  clock[me] = block.time++;
}
void LearnClock(const Clock& clock) { Join(TheBlock().warps[TheBlock().running->number / kWarpLanes].known, clock); }

void InitBarrier(uint64_t* barrier, int num_arrivals) {
  if (!IsShared(barrier, sizeof(*barrier))) Fail("initialises a barrier outside shared memory");
  if (num_arrivals < 1 || num_arrivals >= 1 << 20) Fail("initialises a barrier with no or too many arrivals");
  NoteAccess(barrier, sizeof(*barrier), Access::kWrite);
  if (num_arrivals > 1 && IsFaulty({"MbarrierInit", 0, barrier}, FaultKind::kHalfTheArrivals)) num_arrivals /= 2;
  Barrier fresh;
  fresh.num_arrivals = fresh.num_missing = num_arrivals;
  fresh.owner = TheBlock().running->number;
  TheBarriers().counting[{TheBlock().running->rank, barrier}] = std::move(fresh);
}

void FenceBarrierInits() {
  for (auto& [place, barrier] : TheBarriers().counting) {
    if (barrier.owner == TheBlock().running->number) barrier.is_fenced = true;
  }
}

void ArriveBarrier(uint64_t* address, uint32_t num_bytes) {
  NoteAccess(address, sizeof(*address), Access::kAtomic);
  ArriveAt(Find(TheBlock().running->rank, address), num_bytes);
}

void ArriveBarrierOf(int rank, uint64_t* address, Where where) {
  CheckRank(rank);
  if (rank != TheBlock().running->rank && IsFaulty({"ClusterArrive", where.line}, FaultKind::kSkipped)) return;
  ArriveAt(Find(rank, address), 0);
}

void AddBarrierBytes(int rank, uint64_t* address, int64_t num_bytes) {
  Barrier& barrier = Find(rank, address);
  if (!barrier.is_fenced) Fail("copies in bulk with a barrier that was not fenced after its initialisation");
  barrier.num_bytes -= num_bytes;
  if (num_bytes == 0) return;  // asked only whether it can
  barrier.joined[kAsyncAgent] = TheBlock().time++;
  EndPhaseIfOver(barrier);
}

void WaitBarrier(uint64_t* address, uint32_t parity, Where where) {
  Block& block = TheBlock();
  Barrier& barrier = Find(block.running->rank, address);
  NoteAccess(address, sizeof(*address), Access::kAtomic);
  LandSometimes(block);
  const Call call = {"MbarrierWait", where.line, address};
  if (IsFaulty(call, FaultKind::kSkipped)) return;
  if (IsFaulty(call, FaultKind::kOtherPhase)) parity ^= 1;
  while ((barrier.phase & 1) == (parity & 1)) {
    barrier.waiting.push_back(block.running);
    Pause("MbarrierWait", where);
  }
  const int warp = block.running->number / kWarpLanes;
  if ((barrier.learned >> warp & 1) == 0) LearnClock(barrier.over);
  barrier.learned |= uint64_t{1} << warp;
}

void MeetNamedBarrier(int id, int num_threads, bool waits, Where where) {
  if (id < 1 || id >= kNumNamedBarriers) Fail("a named barrier has a number from 1 to 15");
  if (num_threads < kWarpLanes || num_threads % kWarpLanes != 0) Fail("a named barrier is of whole warps");
  NamedBarrier& barrier = TheBarriers().named[TheBlock().running->rank][id];
  if (waits && IsFaulty({"NamedBarrierWait", id}, FaultKind::kSkipped)) waits = false;
  if (barrier.num_arrived > 0 && barrier.num_threads != num_threads) {
    Fail("meets others at a named barrier that expect another number of threads");
  }
  barrier.num_threads = num_threads;
  if (barrier.num_arrived == 0) barrier.joined = Clock();
  JoinClock(barrier.joined);
  if (++barrier.num_arrived < num_threads) {
    if (!waits) return;
    barrier.waiting.push_back(TheBlock().running);
    return Pause("NamedBarrierWait", where);
  }
  uint64_t learned = 0;
  for (Thread* thread : barrier.waiting) {
    const int warp = thread->number / kWarpLanes;
    if ((learned >> warp & 1) == 0) Join(TheBlock().warps[warp].known, barrier.joined);
    learned |= uint64_t{1} << warp;
    Wake(TheBlock(), *thread);
  }
  if (waits) LearnClock(barrier.joined);
  barrier.num_arrived = 0;
  barrier.waiting.clear();
  MaybeYield(TheBlock());
}

void FenceAsyncProxy(Where where) {
  if (IsFaulty({"FenceAsyncProxy", where.line}, FaultKind::kSkipped)) return;
  TheBlock().running->fence_time = TheBlock().time++;
}

}  // namespace simt
