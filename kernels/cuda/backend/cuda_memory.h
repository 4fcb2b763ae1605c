// SPDX-License-Identifier: Apache-2.0
#pragma once
// Memory of the device, memory of the host that the device can copy from at full speed, and pairs of both in which
// arrays are laid out once and then filled and copied step by step. Freed when dropped.
// The host's side is there twice: one step is laid out while the one before may still be copied.
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/backend/cuda_stream.h"
#include "kernels/device.h"

namespace millrace::cuda {

class DeviceMemory final : public Buffer {
 public:
  // Zeroed, 256-byte aligned. ResourceExhausted when the memory is not to be had, with the size in the message.
  static absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(size_t num_bytes, CudaStream& stream);
  ~DeviceMemory() override;
  void* data() override { return data_; }
  size_t num_bytes() const override { return num_bytes_; }

 private:
  DeviceMemory(void* data, size_t num_bytes) : data_(data), num_bytes_(num_bytes) {}

  void* const data_;
  const size_t num_bytes_;
};

// Offsets of arrays that lie one behind the other, each 256-byte aligned.
class ArrayLayout {
 public:
  template <typename T>
  size_t Add(int64_t count) {
    const size_t offset = num_bytes_;
    num_bytes_ += (static_cast<size_t>(count) * sizeof(T) + 255) / 256 * 256;
    return offset;
  }
  size_t num_bytes() const { return num_bytes_; }

 private:
  size_t num_bytes_ = 0;
};

// The same arrays at the same offsets on the device and, twice, in pinned host memory.
class StagedMemory {
 public:
  StagedMemory() = default;
  ~StagedMemory();
  StagedMemory(const StagedMemory&) = delete;
  StagedMemory& operator=(const StagedMemory&) = delete;

  absl::Status Reserve(size_t num_bytes, CudaStream& stream);
  // Which of the host's two sides is meant from now on: 0 or 1.
  void Choose(int side) { chosen_ = side; }
  template <typename T>
  T* host(size_t offset) const {
    return host_of_side<T>(chosen_, offset);
  }
  template <typename T>
  T* host_of_side(int side, size_t offset) const {
    return reinterpret_cast<T*>(host_ + static_cast<size_t>(side) * num_bytes_ + offset);
  }
  template <typename T>
  T* device(size_t offset) const {
    return reinterpret_cast<T*>(device_ + offset);
  }
  // Bytes [begin, end), in order with everything launched. The host's side must stay as it is until they are copied.
  void Upload(size_t begin, size_t end, CudaStream& stream) const;
  void Download(size_t begin, size_t end, CudaStream& stream) const;

 private:
  size_t num_bytes_ = 0;  // of the device's side
  int chosen_ = 0;
  uint8_t* host_ = nullptr;
  uint8_t* device_ = nullptr;
  std::unique_ptr<DeviceMemory> memory_;
};

}  // namespace millrace::cuda
