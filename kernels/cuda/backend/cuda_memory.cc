// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/backend/cuda_memory.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace millrace::cuda {

absl::StatusOr<std::unique_ptr<DeviceMemory>> DeviceMemory::Allocate(size_t num_bytes, CudaStream& stream) {
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, std::max<size_t>(num_bytes, 1));
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());  // it is told here, and of no kernel
    return absl::ResourceExhaustedError(absl::StrCat("the CUDA device has no ", num_bytes, " bytes of memory left"));
  }
  RETURN_IF_ERROR(ToStatus(error, "allocating memory"));
  std::unique_ptr<DeviceMemory> memory(new DeviceMemory(data, num_bytes));
  stream.Keep(cudaMemsetAsync(data, 0, std::max<size_t>(num_bytes, 1), stream.get()), "zeroing memory");
  return memory;
}

DeviceMemory::~DeviceMemory() { static_cast<void>(cudaFree(data_)); }

StagedMemory::~StagedMemory() { static_cast<void>(cudaFreeHost(host_)); }

absl::Status StagedMemory::Reserve(size_t num_bytes, CudaStream& stream) {
  static_cast<void>(cudaFreeHost(host_));
  host_ = nullptr;
  void* host = nullptr;
  RETURN_IF_ERROR(ToStatus(cudaHostAlloc(&host, 2 * num_bytes, cudaHostAllocDefault), "allocating pinned host memory"));
  host_ = static_cast<uint8_t*>(host);
  num_bytes_ = num_bytes;
  ASSIGN_OR_RETURN(memory_, DeviceMemory::Allocate(num_bytes, stream));
  device_ = static_cast<uint8_t*>(memory_->data());
  return absl::OkStatus();
}

void StagedMemory::Upload(size_t begin, size_t end, CudaStream& stream) const {
  if (begin == end) return;
  stream.Keep(cudaMemcpyAsync(device_ + begin, host<uint8_t>(begin), end - begin, cudaMemcpyHostToDevice, stream.get()),
              "copying a step's inputs");
}

void StagedMemory::Download(size_t begin, size_t end, CudaStream& stream) const {
  if (begin == end) return;
  stream.Keep(cudaMemcpyAsync(host<uint8_t>(begin), device_ + begin, end - begin, cudaMemcpyDeviceToHost, stream.get()),
              "copying a step's results");
}

}  // namespace millrace::cuda
