// SPDX-License-Identifier: Apache-2.0
// Device memory and copies. New memory is NaN. Under AddressSanitizer every allocation is one of the heap's; otherwise
// all lie in one reserved range with gaps between, and a table says of every 16 bytes how many may be touched.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "tests/simt/emulator/block.h"
#include "tests/simt/emulator/runtime.h"

namespace simt {
namespace {

constexpr size_t kAlignment = 256;               // cudaMalloc's
constexpr size_t kTotalBytes = size_t{8} << 30;  // what the device says it has
#ifndef SIMT_ASAN
constexpr size_t kGranuleBytes = 16;
constexpr size_t kRangeBytes = size_t{1} << 40;  // addresses, not memory: none is used twice
#endif

struct State {
  std::mutex mu;
  std::map<void*, size_t> allocations;
  std::map<void*, size_t> pinned;  // of the host
  size_t used_bytes = 0;
#ifndef SIMT_ASAN
  char* range = nullptr;
  size_t range_used = 0;
  uint8_t* touchable = nullptr;  // of each granule, how many of its first bytes
  // Of each granule, in which chain of dependent launches a kernel last wrote to it.
  uint32_t* written = nullptr;
  uint32_t chain = 1;
#endif
};
State& TheState() {
  static State state;
  return state;
}

#ifdef SIMT_ASAN
void* Take(size_t num_bytes) {
  void* memory = nullptr;
  return posix_memalign(&memory, kAlignment, num_bytes) == 0 ? memory : nullptr;
}
void GiveBack(void* memory, size_t) { std::free(memory); }
#else
void* Reserve(size_t num_bytes) {
  void* memory = mmap(nullptr, num_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}
void* Take(size_t num_bytes) {
  State& state = TheState();
  if (state.range == nullptr) {
    state.range = static_cast<char*>(Reserve(kRangeBytes));
    state.touchable = static_cast<uint8_t*>(Reserve(kRangeBytes / kGranuleBytes));
    state.written = static_cast<uint32_t*>(Reserve(kRangeBytes / kGranuleBytes * sizeof(uint32_t)));
    if (state.range == nullptr || state.touchable == nullptr || state.written == nullptr) return nullptr;
  }
  const size_t taken_bytes = (num_bytes + kAlignment - 1) / kAlignment * kAlignment + kAlignment;
  if (kRangeBytes - state.range_used < taken_bytes) return nullptr;
  const size_t begin = state.range_used;
  state.range_used += taken_bytes;
  std::memset(state.touchable + begin / kGranuleBytes, kGranuleBytes, num_bytes / kGranuleBytes);
  state.touchable[(begin + num_bytes) / kGranuleBytes] = num_bytes % kGranuleBytes;
  return state.range + begin;
}
void GiveBack(void* memory, size_t num_bytes) {
  State& state = TheState();
  const size_t begin = static_cast<char*>(memory) - state.range;
  std::memset(state.touchable + begin / kGranuleBytes, 0, num_bytes / kGranuleBytes + 1);
  constexpr uintptr_t kPageMask = 4095;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(memory) + kPageMask) & ~kPageMask;
  const uintptr_t last = (reinterpret_cast<uintptr_t>(memory) + num_bytes) & ~kPageMask;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}
#endif

#ifndef SIMT_ASAN
// Before a dependent kernel waits, none of the chain before it need be through: what they wrote may not be there yet,
// and what they read may not be overwritten.
void CheckDependency(uint32_t& written, Access access, const void* code) {
  const Block& block = TheBlock();
  if (block.launch->is_dependent && !block.running->has_waited_for_grid) {
    // Only of what goes wrong: a kernel may read much before it waits.
    const auto where = [code] { return code == nullptr ? "" : ", in " + DescribeCode(code); };
    if (access != Access::kRead) SIMT_FAIL("writes device memory before GridDependencyWait" + where());
    if (written == TheState().chain) {
      SIMT_FAIL("reads what a kernel before it wrote, before GridDependencyWait" + where());
    }
  }
  if (access == Access::kRead) return;
  // Every kernel asks for the next as soon as it may: at its end is no sooner than without the call.
  if (block.launch->is_dependent && !block.running->has_let_next_start) {
    SIMT_FAIL("writes device memory before GridDependencyLaunch");
  }
  written = TheState().chain;
}

std::string DescribeOutside(const void* address, size_t num_bytes, const void* code) {
  const State& state = TheState();
  std::string text = "touches " + std::to_string(num_bytes) + " bytes outside any allocation";
  auto next = state.allocations.upper_bound(const_cast<void*>(address));
  if (next != state.allocations.begin()) {
    --next;
    const size_t from_begin = static_cast<const char*>(address) - static_cast<char*>(next->first);
    text += ", at byte " + std::to_string(from_begin) + " of one of " + std::to_string(next->second) + " bytes";
  }
  if (code != nullptr) text += ", in " + DescribeCode(code);
  return text;
}
#endif

cudaError_t Copy(void* to, const void* from, size_t num_bytes) {
  if (DeviceState() != cudaSuccess) return DeviceState();
  EndDependencies();
  if (num_bytes > 0) std::memmove(to, from, num_bytes);  // of nothing, the addresses may be null
  return cudaSuccess;
}

bool IsIn(const std::map<void*, size_t>& allocations, const void* address) {
  auto next = allocations.upper_bound(const_cast<void*>(address));
  if (next == allocations.begin()) return false;
  --next;
  return static_cast<const char*>(address) < static_cast<char*>(next->first) + next->second;
}

// Memory of the host that was not pinned: the runtime copies from it before the call returns, and to it as well.
bool IsPageable(const void* address) {
  State& state = TheState();
  const std::lock_guard<std::mutex> lock(state.mu);
  return !IsIn(state.allocations, address) && !IsIn(state.pinned, address);
}

}  // namespace

void CheckDeviceAccess([[maybe_unused]] const void* address, [[maybe_unused]] size_t num_bytes,
                       [[maybe_unused]] Access access, [[maybe_unused]] const void* code) {
#ifndef SIMT_ASAN
  State& state = TheState();
  const size_t offset = static_cast<const char*>(address) - state.range;
  if (state.range == nullptr || offset >= kRangeBytes) return;
  for (size_t at = offset; at < offset + num_bytes;) {
    const size_t granule_end = (at / kGranuleBytes + 1) * kGranuleBytes;
    const size_t end = offset + num_bytes < granule_end ? offset + num_bytes : granule_end;
    if (end - at / kGranuleBytes * kGranuleBytes > state.touchable[at / kGranuleBytes]) {
      SIMT_FAIL(DescribeOutside(address, num_bytes, code));
    }
    CheckDependency(state.written[at / kGranuleBytes], access, code);
    at = end;
  }
#endif
}

void TakeBytes(int64_t num_bytes) {
  const std::lock_guard<std::mutex> lock(TheState().mu);
  TheState().used_bytes += static_cast<size_t>(num_bytes);
}

void EndDependencies() {
#ifndef SIMT_ASAN
  ++TheState().chain;
#endif
}

}  // namespace simt

cudaError_t cudaMalloc(void** memory, size_t num_bytes) {
  if (simt::BreaksCapture()) return simt::Note(cudaErrorStreamCaptureUnsupported);
  simt::State& state = simt::TheState();
  const std::lock_guard<std::mutex> lock(state.mu);
  *memory = nullptr;
  if (num_bytes == 0) return cudaSuccess;
  if (state.used_bytes + num_bytes > simt::kTotalBytes) return simt::Note(cudaErrorMemoryAllocation);
  *memory = simt::Take(num_bytes);
  if (*memory == nullptr) return simt::Note(cudaErrorMemoryAllocation);
  std::memset(*memory, 0xff, num_bytes);
  state.allocations[*memory] = num_bytes;
  state.used_bytes += num_bytes;
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  if (simt::BreaksCapture()) return simt::Note(cudaErrorStreamCaptureUnsupported);
  if (memory == nullptr) return cudaSuccess;
  simt::FinishStreams();
  simt::State& state = simt::TheState();
  const std::lock_guard<std::mutex> lock(state.mu);
  const auto found = state.allocations.find(memory);
  if (found == state.allocations.end()) return simt::Note(cudaErrorInvalidValue);
  state.used_bytes -= found->second;
  simt::GiveBack(memory, found->second);
  state.allocations.erase(found);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  simt::State& state = simt::TheState();
  const std::lock_guard<std::mutex> lock(state.mu);
  *total_bytes = simt::kTotalBytes;
  *free_bytes = simt::kTotalBytes - state.used_bytes;
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** memory, size_t num_bytes, unsigned int) {
  if (simt::BreaksCapture()) return simt::Note(cudaErrorStreamCaptureUnsupported);
  constexpr size_t kHostAlignment = 4096;
  if (posix_memalign(memory, kHostAlignment, num_bytes > 0 ? num_bytes : 1) != 0) {
    return simt::Note(cudaErrorMemoryAllocation);
  }
  std::memset(*memory, 0xff, num_bytes);
  const std::lock_guard<std::mutex> lock(simt::TheState().mu);
  simt::TheState().pinned[*memory] = num_bytes;
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** memory, size_t num_bytes) { return cudaHostAlloc(memory, num_bytes, 0); }
cudaError_t cudaFreeHost(void* memory) {
  if (simt::BreaksCapture()) return simt::Note(cudaErrorStreamCaptureUnsupported);
  if (memory != nullptr) simt::FinishStreams();
  {
    const std::lock_guard<std::mutex> lock(simt::TheState().mu);
    simt::TheState().pinned.erase(memory);
  }
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaHostRegister(void*, size_t, unsigned int) { return cudaSuccess; }
cudaError_t cudaHostUnregister(void*) { return cudaSuccess; }

cudaError_t cudaMemcpy(void* to, const void* from, size_t num_bytes, cudaMemcpyKind) {
  if (simt::BreaksCapture()) return simt::Note(cudaErrorStreamCaptureUnsupported);
  return simt::Note(simt::Copy(to, from, num_bytes));
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t num_bytes, cudaMemcpyKind, cudaStream_t stream) {
  if (!simt::IsDeferring(stream)) return simt::RunOrRecord(stream, [=] { return simt::Copy(to, from, num_bytes); });
  if (simt::IsPageable(from)) {
    const char* const bytes = static_cast<const char*>(from);
    return simt::RunOrRecord(stream, [to, kept = std::vector<char>(bytes, bytes + num_bytes)] {
      return simt::Copy(to, kept.data(), kept.size());
    });
  }
  const cudaError_t error = simt::RunOrRecord(stream, [=] { return simt::Copy(to, from, num_bytes); });
  return simt::IsPageable(to) ? cudaStreamSynchronize(stream) : error;
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind, cudaStream_t stream) {
  return simt::RunOrRecord(stream, [=] {
    cudaError_t error = cudaSuccess;
    for (size_t row = 0; row < height && error == cudaSuccess; ++row) {
      error =
          simt::Copy(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch, width);
    }
    return error;
  });
}
cudaError_t cudaMemset(void* to, int value, size_t num_bytes) {
  if (simt::BreaksCapture()) return simt::Note(cudaErrorStreamCaptureUnsupported);
  return cudaMemsetAsync(to, value, num_bytes, nullptr);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t num_bytes, cudaStream_t stream) {
  return simt::RunOrRecord(stream, [=] {
    if (simt::DeviceState() != cudaSuccess) return simt::DeviceState();
    simt::EndDependencies();
    if (num_bytes > 0) std::memset(to, value, num_bytes);
    return cudaSuccess;
  });
}
