// SPDX-License-Identifier: Apache-2.0
// Shared memory of the running blocks, their asynchronous copies, and a shadow that knows for every byte who wrote and
// who read it since the last meeting that would have put the accesses in order.
#include <cstdlib>
#include <cstring>

#include "tests/simt/emulator/block.h"

// The static arrays of all kernels (`__shared__ float x[32]`), gathered by the linker; absent where there are none.
extern "C" {
extern char __start_simt_shared[] __attribute__((weak));
extern char __stop_simt_shared[] __attribute__((weak));
}

namespace simt {
namespace {

constexpr size_t kAlignment = 128;
// Where instructions see dynamic memory: aligned to no more than is promised. Static arrays lie behind it.
constexpr uint32_t kFirstAddress = 1024 + 128;
constexpr uint32_t kFirstStaticAddress = 1 << 18;

// The last accesses of a byte. Of readers, the last, and the last of another warp than that one's.
struct Cell {
  uint32_t write_time = 0, read_time = 0, other_time = 0;
  uint16_t writer = 0, reader = 0, other = 0;
  bool is_atomic = false;       // the last write
  bool is_copying = false;      // an asynchronous copy that its thread has not waited for
  bool has_warp_mates = false;  // lanes beside `reader` read at the same time
  bool is_agents = false;       // the last write was a bulk copy's
  uint32_t products[4] = {};    // the last that read it, of each warpgroup
};
constexpr int kMaxWarpgroups = 4;  // that multiply

struct SharedMemory {
  char* bytes = nullptr;
  size_t num_bytes = 0;
  std::vector<Cell> cells;    // dynamic memory's, then the static arrays'
  std::vector<char> statics;  // while another block's are in their place
};
struct ClusterMemory {
  SharedMemory of_rank[kMaxClusterBlocks];
  int num_ranks = 1;
  int selected = 0;
};
ClusterMemory& TheMemory() {
  static ClusterMemory memory;
  return memory;
}
SharedMemory& Memory() { return TheMemory().of_rank[TheMemory().selected]; }
size_t StaticBytes() { return static_cast<size_t>(__stop_simt_shared - __start_simt_shared); }

// Where the shadow of an address is; null outside shared memory.
Cell* CellOf(const void* address, size_t num_bytes) {
  const char* at = static_cast<const char*>(address);
  for (int rank = 0; rank < TheMemory().num_ranks; ++rank) {
    SharedMemory& memory = TheMemory().of_rank[rank];
    if (at >= memory.bytes && at + num_bytes <= memory.bytes + memory.num_bytes) {
      return memory.cells.data() + (at - memory.bytes);
    }
  }
  SharedMemory& memory = Memory();
  if (at >= __start_simt_shared && at + num_bytes <= __stop_simt_shared) {
    return memory.cells.data() + memory.num_bytes + (at - __start_simt_shared);
  }
  return nullptr;
}

std::string DescribeNumber(int number) {
  return number == kAsyncAgent ? "a bulk copy" : Describe(TheBlock().threads[number]);
}
const char* Verb(Access access) {
  return access == Access::kRead ? "reads" : access == Access::kWrite ? "writes" : "changes atomically";
}
std::string DescribeRace(int now, Access access, const char* what, int earlier, const void* address) {
  const SharedMemory& memory = Memory();
  const char* at = static_cast<const char*>(address);
  const bool is_dynamic = at >= memory.bytes && at < memory.bytes + memory.num_bytes;
  const std::string place =
      is_dynamic ? "byte " + std::to_string(at - memory.bytes) + " of dynamic shared memory" : "a static shared array";
  const Block& block = TheBlock();
  return "race: " + DescribeNumber(now) + " " + Verb(access) + " " + place + ", which " + DescribeNumber(earlier) +
         " " + what + (block.code != nullptr ? "; now in " + DescribeCode(block.code) : "");
}
[[noreturn]] void FailRace(int now, Access access, const char* what, int earlier, const void* address) {
  SIMT_FAIL(DescribeRace(now, access, what, earlier, address));
}

void CheckWriter(const Block& block, const Cell& cell, int now, Access access, const void* address) {
  if (cell.is_copying && cell.write_time > 0) {
    FailRace(now, access, "copies to asynchronously and has not waited for", cell.writer, address);
  }
  if (access == Access::kAtomic && cell.is_atomic) return;
  if (!IsOrdered(block, cell.write_time, cell.writer, now)) {
    FailRace(now, access, "wrote with nothing between to order them", cell.writer, address);
  }
}

void CheckReaders(const Block& block, const Cell& cell, int now, Access access, const void* address) {
  const char* what = "read with nothing between to order them";
  if (!IsOrdered(block, cell.read_time, cell.reader, now)) FailRace(now, access, what, cell.reader, address);
  if (!IsOrdered(block, cell.other_time, cell.other, now)) FailRace(now, access, what, cell.other, address);
  for (const uint32_t id : cell.products) {
    const char* fault = id != 0 ? ProductFault(id, now) : nullptr;
    if (fault != nullptr) SIMT_FAIL("race: " + DescribeNumber(now) + " writes shared memory that a product " + fault);
  }
  const bool is_warp_mate = cell.reader == now && cell.has_warp_mates;
  const uint32_t warp_time = std::max(block.sync_time, block.warps[now / kWarpLanes].sync_time);
  if (is_warp_mate && cell.read_time > warp_time) {
    SIMT_FAIL("race: " + Describe(block.threads[now]) + " writes shared memory that other lanes of its warp " + what);
  }
}

void NoteReader(const Block& block, Cell& cell, int now) {
  const bool is_same_warp = cell.reader / kWarpLanes == now / kWarpLanes;
  const uint32_t warp_time = std::max(block.sync_time, block.warps[now / kWarpLanes].sync_time);
  const bool is_fresh = cell.read_time > warp_time;
  if (!is_same_warp && cell.read_time > block.sync_time) {
    cell.other = cell.reader;
    cell.other_time = cell.read_time;
  }
  cell.has_warp_mates = is_same_warp && is_fresh && (cell.has_warp_mates || cell.reader != now);
  cell.reader = static_cast<uint16_t>(now);
  cell.read_time = block.time;
}

void NoteWriter(const Block& block, Cell& cell, int now, Access access) {
  cell = Cell();
  cell.writer = static_cast<uint16_t>(now);
  cell.write_time = block.time;
  cell.is_atomic = access == Access::kAtomic;
}

void NoteAccessOf(int now, const void* address, size_t num_bytes, Access access) {
  Cell* cells = CellOf(address, num_bytes);
  if (cells == nullptr) return;
  const Block& block = TheBlock();
  for (size_t i = 0; i < num_bytes; ++i) {
    const char* at = static_cast<const char*>(address) + i;
    CheckWriter(block, cells[i], now, access, at);
    if (access != Access::kRead) CheckReaders(block, cells[i], now, access, at);
    if (access == Access::kRead) {
      NoteReader(block, cells[i], now);
    } else {
      NoteWriter(block, cells[i], now, access);
    }
  }
}

void Land(PendingCopy& copy) {
  if (copy.has_landed) return;
  copy.has_landed = true;
  if (copy.is_valid) {
    std::memcpy(copy.shared, copy.global, copy.num_bytes);
  } else {
    std::memset(copy.shared, 0, copy.num_bytes);
  }
}

// Some copies are faster than others.
void LandSome(Block& block, Thread& thread, uint32_t one_in) {
  if (!IsSeeded()) return;
  for (PendingCopy& copy : thread.copies) {
    if (Random(block) % one_in == 0) Land(copy);
  }
}

void BeginMemoryOf(SharedMemory& memory, size_t num_bytes) {
  if (memory.num_bytes != num_bytes || memory.bytes == nullptr) {
    std::free(memory.bytes);
    // Of exactly this size, so that AddressSanitizer sees what is beyond.
    void* bytes = nullptr;
    if (posix_memalign(&bytes, kAlignment, num_bytes > 0 ? num_bytes : 1) != 0) std::abort();
    memory.bytes = static_cast<char*>(bytes);
    memory.num_bytes = num_bytes;
    memory.cells.assign(num_bytes + StaticBytes(), Cell());
  }
  std::memset(memory.bytes, 0xff, num_bytes);
  memory.statics.assign(StaticBytes(), static_cast<char>(0xff));
  for (Cell& cell : memory.cells) {
    cell.is_copying = false;
    std::memset(cell.products, 0, sizeof(cell.products));
  }
}

}  // namespace

void BeginSharedMemory(size_t num_bytes, int num_ranks) {
  TheMemory().num_ranks = num_ranks;
  TheMemory().selected = 0;
  for (int rank = 0; rank < num_ranks; ++rank) BeginMemoryOf(TheMemory().of_rank[rank], num_bytes);
  if (StaticBytes() > 0) std::memset(__start_simt_shared, 0xff, StaticBytes());
}

void SelectSharedMemory(int rank) {
  if (rank == TheMemory().selected) return;
  if (StaticBytes() > 0) {
    std::memcpy(Memory().statics.data(), __start_simt_shared, StaticBytes());
    std::memcpy(__start_simt_shared, TheMemory().of_rank[rank].statics.data(), StaticBytes());
  }
  TheMemory().selected = rank;
}
int SelectedRank() { return TheMemory().selected; }

bool IsOrdered(const Block& block, uint32_t time, int earlier, int now) {
  if (time <= block.sync_time || earlier == now) return true;
  const Warp& warp = block.warps[now / kWarpLanes];
  if (time <= warp.known[earlier]) return true;
  return earlier / kWarpLanes == now / kWarpLanes && time <= warp.sync_time;
}

uint32_t AddressOf(const void* shared) {
  const SharedMemory& memory = Memory();
  const char* at = static_cast<const char*>(shared);
  if (at >= memory.bytes && at <= memory.bytes + memory.num_bytes) {
    return kFirstAddress + static_cast<uint32_t>(at - memory.bytes);
  }
  return kFirstStaticAddress + static_cast<uint32_t>(at - __start_simt_shared);
}
void* SharedPointer(uint32_t address, size_t num_bytes) {
  return SharedPointerOf(TheMemory().selected, address, num_bytes);
}
void* SharedPointerOf(int rank, uint32_t address, size_t num_bytes) {
  const SharedMemory& memory = TheMemory().of_rank[rank];
  if (address < kFirstAddress || address + num_bytes > kFirstAddress + memory.num_bytes) return nullptr;
  return memory.bytes + (address - kFirstAddress);
}

void BeginAgentCopy(void* shared, size_t num_bytes) {
  Cell* cells = CellOf(shared, num_bytes);
  if (cells == nullptr) Fail("copies to what is not the block's shared memory");
  NoteAccessOf(TheBlock().running->number, shared, num_bytes, Access::kWrite);
  for (size_t i = 0; i < num_bytes; ++i) cells[i].is_copying = true;
  std::memset(shared, 0xff, num_bytes);
}
void EndAgentCopy(void* shared, const void* global, size_t num_bytes) {
  if (global != nullptr) {
    std::memcpy(shared, global, num_bytes);
  } else {
    std::memset(shared, 0, num_bytes);
  }
  Cell* cells = CellOf(shared, num_bytes);
  for (size_t i = 0; i < num_bytes; ++i) {
    cells[i].is_copying = false;
    cells[i].is_agents = true;
    cells[i].writer = kAsyncAgent;
    cells[i].write_time = TheBlock().time;
  }
}

void NoteProductRead(uint32_t id, const void* address, size_t num_bytes) {
  const Block& block = TheBlock();
  const int first = block.running->number / kWarpgroupThreads * kWarpgroupThreads;
  Cell* cells = CellOf(address, num_bytes);
  for (size_t i = 0; i < num_bytes; ++i) {
    Cell& cell = cells[i];
    const char* at = static_cast<const char*>(address) + i;
    for (int warp = 0; warp < kWarpgroupThreads / kWarpLanes; ++warp) {
      CheckWriter(block, cell, first + warp * kWarpLanes, Access::kRead, at);
    }
    const bool is_written = cell.write_time > block.begin_time;
    if (is_written && !cell.is_agents && block.threads[cell.writer].fence_time < cell.write_time) {
      SIMT_FAIL("a product reads what " + DescribeNumber(cell.writer) + " wrote, with no FenceAsyncProxy after it");
    }
    cell.products[first / kWarpgroupThreads % kMaxWarpgroups] = id;
  }
}

void* SharedBytes() { return Memory().bytes; }
bool IsShared(const void* address, size_t num_bytes) { return CellOf(address, num_bytes) != nullptr; }

void NoteAccess(const void* address, size_t num_bytes, Access access) {
  const Block& block = TheBlock();
  if (block.running != nullptr) NoteAccessOf(block.running->number, address, num_bytes, access);
}
void NoteLaneRead(int lane, const void* address, size_t num_bytes) {
  const int warp = TheBlock().running->number / kWarpLanes;
  NoteAccessOf(warp * kWarpLanes + lane, address, num_bytes, Access::kRead);
}

void CopyAsync(void* shared, const void* global, size_t num_bytes, bool is_valid) {
  Block& block = TheBlock();
  Thread& me = *block.running;
  Cell* cells = CellOf(shared, num_bytes);
  if (cells == nullptr) Fail("copies asynchronously to what is not the block's shared memory");
  if (reinterpret_cast<uintptr_t>(shared) % num_bytes != 0)
    Fail("copies asynchronously to an address it is not aligned to");
  if (is_valid && reinterpret_cast<uintptr_t>(global) % num_bytes != 0) {
    Fail("copies asynchronously from an address it is not aligned to");
  }
  if (is_valid) CheckDeviceAccess(global, num_bytes, Access::kRead, nullptr);
  NoteAccessOf(me.number, shared, num_bytes, Access::kWrite);
  for (size_t i = 0; i < num_bytes; ++i) cells[i].is_copying = true;
  std::memset(shared, 0xff, num_bytes);
  me.copies.push_back({shared, global, static_cast<uint8_t>(num_bytes), is_valid, false, me.num_groups});
  LandSome(block, me, 8);
}

void CommitCopies() {
  Block& block = TheBlock();
  LandSome(block, *block.running, 8);
  ++block.running->num_groups;
}

void WaitCopies(int num_pending) {
  Block& block = TheBlock();
  Thread& me = *block.running;
  size_t num_kept = 0;
  for (PendingCopy& copy : me.copies) {
    if (static_cast<int64_t>(copy.group) >= int64_t{me.num_groups} - num_pending) {
      me.copies[num_kept++] = copy;
      continue;
    }
    Land(copy);
    Cell* cells = CellOf(copy.shared, copy.num_bytes);
    for (int i = 0; i < copy.num_bytes; ++i) {
      cells[i].is_copying = false;
      cells[i].write_time = block.time;
    }
  }
  me.copies.resize(num_kept);
  LandSome(block, me, 4);
}

void LandAllCopies(Thread* thread) {
  for (PendingCopy& copy : thread->copies) Land(copy);
}

}  // namespace simt
