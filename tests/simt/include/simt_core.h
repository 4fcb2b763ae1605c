// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the shadow headers ask of the emulator, and what tests may ask of it. See tests/simt/emulator/block.h for how
// it works. Blocks run one after another on the launching thread; a mutex keeps launches of several threads apart.
#include <cstddef>
#include <cstdint>
#include <string>

#include "vector_types.h"

namespace simt {

// A place in a kernel's source, for reports.
struct Where {
  const char* file;
  int line;
};
#define SIMT_HERE \
  ::simt::Where { __builtin_FILE(), __builtin_LINE() }

constexpr uint32_t kAllLanes = 0xffffffffu;

// The arguments of a warp's lanes at a collective; null for lanes outside the mask.
struct Lanes {
  void* arguments[32];
  uint32_t mask;
};

// Waits until all lanes of the mask are here with the same name and mask; whoever comes last executes for all.
void MeetWarp(const char* name, uint32_t mask, void* argument, void (*execute)(const Lanes&), Where where);
// Waits for the whole block. Returns how many threads brought true.
int MeetBlock(bool value, Where where);
// Waits for all blocks of the cluster.
void MeetCluster(Where where);
int ThisLane();

// Ends the launch with a report that names kernel, block and thread. Device code only.
[[noreturn]] void Fail(const char* what);

// The block's dynamic shared memory.
void* SharedBytes();
bool IsShared(const void* address, size_t num_bytes);
uint32_t AddressOf(const void* shared);  // as instructions have it
// Asynchronous copies of the calling thread: they land when a wait covers them, or, by the seed, earlier.
void CopyAsync(void* shared, const void* global, size_t num_bytes, bool is_valid);
void CommitCopies();
void WaitCopies(int num_pending);
void NoteGridDependencyWait();
void NoteGridDependencyLaunch();

// Accesses of shared memory by the calling thread (or by a lane of its warp), for the race report.
enum class Access : uint8_t { kRead, kWrite, kAtomic };
void NoteAccess(const void* address, size_t num_bytes, Access access);
void NoteLaneRead(int lane, const void* address, size_t num_bytes);

// Host side ------------------------------------------------------------------------------------------------------

struct LaunchRequest {
  const void* kernel = nullptr;
  dim3 grid, block;
  size_t shared_bytes = 0;
  bool is_dependent = false;
  int cluster_blocks = 1;
  void (*run)(const void* arguments) = nullptr;  // calls the kernel, as one thread
  const void* arguments = nullptr;
};
// Runs all blocks. False: a report ended it; it is on stderr and in LastReport.
bool RunKernel(const LaunchRequest& request);

// Kernels that ran as dependent on the one before them, since the last call.
int64_t TakeDependentLaunches();
// Blocks of the largest clusters that ran since the last call, 1 without; 0: nothing ran.
int TakeClusterBlocks();

// 0: blocks and threads in order. Else each block draws its order from the seed, and so does the grid.
void SetSeed(uint64_t seed);
// The text of the last report, and forgets it. Empty: none since.
std::string TakeReport();
// While one lives, reports are kept and not printed.
class QuietReports {
 public:
  QuietReports();
  ~QuietReports();
};

// While one lives, streams that are created keep their work until the host waits for it (for the stream, for an event
// behind the work, or by freeing memory): the latest a device may do it. Copies then read and write pinned memory of
// the host at that time. Else everything runs at once, the earliest.
class DeferredStreams {
 public:
  DeferredStreams();
  ~DeferredStreams();
};
// What each instantiated graph takes of the device's memory, from now on; 0 at first.
void SetGraphBytes(size_t num_bytes);
// What a rank's communicator of the stand-in for NCCL takes of the device's memory, from now on: for itself and when it
// first adds little, adds much, and gathers; 0 at first.
void SetExchangeBytes(size_t num_bytes);
// Whether a stream has work that nobody waited for.
bool HasDeferredWork();
// How often the host waited for a stream (or for all of the device), and for events, since the last call.
struct HostWaits {
  int num_for_streams = 0, num_for_events = 0;
};
HostWaits TakeHostWaits();

// How often rows of an ldmatrix met in a bank, beyond the first of each, since the last call.
struct BankConflicts {
  int64_t ldmatrix = 0;
};
BankConflicts TakeBankConflicts();

}  // namespace simt

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
