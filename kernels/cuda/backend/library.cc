// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/backend/library.h"

#include "kernels/cuda/backend/cuda_device.h"

extern "C" __attribute__((visibility("default"))) int millrace_cuda_open(
    int caller_version, const millrace::CudaDeviceOptions* options,
    absl::StatusOr<std::unique_ptr<millrace::Device>>* device) {
  if (caller_version == millrace::cuda::kLibraryVersion) *device = millrace::cuda::CudaDevice::Open(*options);
  return millrace::cuda::kLibraryVersion;
}
