// SPDX-License-Identifier: Apache-2.0
#pragma once
// Zeroed memory straight from the kernel, in huge pages where it grants them: packed weights and KV pages are read
// in long streams, and 4 KiB pages would spend the time in TLB misses. Value type, moves only; any thread.
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"

namespace millrace::cpu {

class PageBuffer {
 public:
  PageBuffer() = default;
  // ResourceExhausted when the memory is not to be had, with the size in the message.
  static absl::StatusOr<PageBuffer> Allocate(size_t num_bytes);
  PageBuffer(PageBuffer&& other) noexcept { *this = std::move(other); }
  PageBuffer& operator=(PageBuffer&& other) noexcept;
  ~PageBuffer();

  // Aligned to 4 KiB, and to 2 MiB when it is that large; null when empty.
  uint8_t* data() const { return data_; }
  size_t num_bytes() const { return num_bytes_; }

 private:
  uint8_t* data_ = nullptr;
  size_t num_bytes_ = 0;
  void* mapping_ = nullptr;  // what munmap takes: data_ lies inside, aligned
  size_t mapping_bytes_ = 0;
};

}  // namespace millrace::cpu
