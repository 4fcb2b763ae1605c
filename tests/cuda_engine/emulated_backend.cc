// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include "kernels/cuda/backend/cuda_device.h"
#include "tests/cuda_engine/cuda_backend.h"

namespace millrace::testing {

const bool kIsEmulated = true;

absl::StatusOr<std::unique_ptr<Device>> OpenCuda(const CudaDeviceOptions& options) {
  return cuda::CudaDevice::Open(options);
}
int NumReplays(Device& device) { return static_cast<cuda::CudaDevice&>(device).ops().num_replays(); }
absl::Status RecordingFault(Device& device) { return static_cast<cuda::CudaDevice&>(device).ops().recording_fault(); }

}  // namespace millrace::testing
