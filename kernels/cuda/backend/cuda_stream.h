// SPDX-License-Identifier: Apache-2.0
#pragma once
// The device's one stream, and the first fault of anything launched on it. Owned by CudaDevice; engine thread (the
// loading thread before that).
#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace millrace::cuda {

// OK, or Internal with the name of what failed and CUDA's own words.
absl::Status ToStatus(cudaError_t error, std::string_view what);

class CudaStream {
 public:
  // On the device that is current.
  static absl::StatusOr<std::unique_ptr<CudaStream>> Create();
  ~CudaStream();
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  cudaStream_t get() const { return stream_; }
  // Notes that `what` was launched, with what its launcher said. The first error stays until the process ends: after
  // an asynchronous fault nothing of the device's state can be trusted.
  void Keep(cudaError_t error, std::string_view what);
  // Whether kernels are launched as dependent (LaunchShape::is_dependent).
  bool overlaps_kernels() const { return overlaps_kernels_; }
  void set_overlaps_kernels(bool overlaps_kernels) { overlaps_kernels_ = overlaps_kernels; }

  // Waits for everything launched; the first error, if there was one.
  absl::Status Synchronize();

  absl::Status first_error() const { return first_error_; }
  void set_first_error(absl::Status error) { first_error_ = std::move(error); }

 private:
  explicit CudaStream(cudaStream_t stream) : stream_(stream) {}

  const cudaStream_t stream_;
  bool overlaps_kernels_ = false;
  absl::Status first_error_;
};

// A place in the stream's work that the host can wait for.
class CudaEvent {
 public:
  CudaEvent() = default;
  ~CudaEvent();
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  absl::Status Create();
  // After everything launched so far. REQUIRES: created.
  void Record(CudaStream& stream);
  // Waits until the place was reached; the stream's first error, if there was one.
  absl::Status Synchronize(CudaStream& stream);

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace millrace::cuda
