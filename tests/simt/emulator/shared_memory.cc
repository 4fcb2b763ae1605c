// SPDX-License-Identifier: Apache-2.0
// Shared memory of the running block, its asynchronous copies, and a shadow that knows for every byte who wrote and who
// read it since the last meeting that would have put the accesses in order.
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

// The last accesses of a byte. Of readers, the last, and the last of another warp than that one's.
struct Cell {
  uint32_t write_time = 0, read_time = 0, other_time = 0;
  uint16_t writer = 0, reader = 0, other = 0;
  bool is_atomic = false;       // the last write
  bool is_copying = false;      // an asynchronous copy that its thread has not waited for
  bool has_warp_mates = false;  // lanes beside `reader` read at the same time
};

struct SharedMemory {
  char* bytes = nullptr;
  size_t num_bytes = 0;
  std::vector<Cell> cells;  // dynamic memory's, then the static arrays'
};
SharedMemory& Memory() {
  static SharedMemory memory;
  return memory;
}
size_t StaticBytes() { return static_cast<size_t>(__stop_simt_shared - __start_simt_shared); }

// Where the shadow of an address is; null outside shared memory.
Cell* CellOf(const void* address, size_t num_bytes) {
  SharedMemory& memory = Memory();
  const char* at = static_cast<const char*>(address);
  if (at >= memory.bytes && at + num_bytes <= memory.bytes + memory.num_bytes) {
    return memory.cells.data() + (at - memory.bytes);
  }
  if (at >= __start_simt_shared && at + num_bytes <= __stop_simt_shared) {
    return memory.cells.data() + memory.num_bytes + (at - __start_simt_shared);
  }
  return nullptr;
}

bool IsOrdered(const Block& block, uint32_t time, int earlier, int now) {
  if (time <= block.sync_time || earlier == now) return true;
  return earlier / kWarpLanes == now / kWarpLanes && time <= block.warps[now / kWarpLanes].sync_time;
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
  return "race: " + Describe(block.threads[now]) + " " + Verb(access) + " " + place + ", which " +
         Describe(block.threads[earlier]) + " " + what +
         (block.code != nullptr ? "; now in " + DescribeCode(block.code) : "");
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

}  // namespace

void BeginSharedMemory(size_t num_bytes) {
  SharedMemory& memory = Memory();
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
  if (StaticBytes() > 0) std::memset(__start_simt_shared, 0xff, StaticBytes());
  for (Cell& cell : memory.cells) cell.is_copying = false;
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
