// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/page_buffer.h"

#include <sys/mman.h>

#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_features.h"

namespace millrace::cpu {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;
// Below this the look at the machine's memory costs more than it protects from.
constexpr size_t kCheckedBytes = size_t{64} << 20;

}  // namespace

absl::StatusOr<PageBuffer> PageBuffer::Allocate(size_t num_bytes) {
  PageBuffer buffer;
  if (num_bytes == 0) return buffer;
  // The kernel promises more than it has and kills us later; so ask first.
  if (num_bytes >= kCheckedBytes && num_bytes > AvailableMemoryBytes()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot allocate ", num_bytes, " bytes: ", AvailableMemoryBytes(), " bytes are available"));
  }
  const size_t slack_bytes = num_bytes >= kHugePageBytes ? kHugePageBytes : 0;
  if (num_bytes > std::numeric_limits<size_t>::max() / 2) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", num_bytes, " bytes"));
  }
  const size_t mapping_bytes = num_bytes + slack_bytes;
  void* mapping = mmap(nullptr, mapping_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", num_bytes, " bytes"));
  }
  uintptr_t address = reinterpret_cast<uintptr_t>(mapping);
  if (slack_bytes != 0) {
    address = (address + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
    // A wish; where it is refused everything still works, only slower.
    madvise(reinterpret_cast<void*>(address), num_bytes, MADV_HUGEPAGE);
  }
  buffer.data_ = reinterpret_cast<uint8_t*>(address);
  buffer.num_bytes_ = num_bytes;
  buffer.mapping_ = mapping;
  buffer.mapping_bytes_ = mapping_bytes;
  return buffer;
}

PageBuffer& PageBuffer::operator=(PageBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(num_bytes_, other.num_bytes_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapping_bytes_, other.mapping_bytes_);
  return *this;
}

PageBuffer::~PageBuffer() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
}

}  // namespace millrace::cpu
