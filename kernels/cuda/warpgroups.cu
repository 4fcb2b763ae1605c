// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include "kernels/cuda/common/ptx_barrier.h"
#include "kernels/cuda/warpgroups.h"

namespace millrace::cuda {
namespace {

// Each architecture that is built for has its own.
__device__ int is_built_for_warpgroups = ptx::kIsSm90a ? 1 : 0;

}  // namespace

cudaError_t FindWarpgroups(bool& has_warpgroups) {
  has_warpgroups = false;
  int device = 0, major = 0, minor = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  if (error != cudaSuccess || major != 9 || minor != 0) return error;
  int is_built = 0;
  error = cudaMemcpyFromSymbol(&is_built, is_built_for_warpgroups, sizeof(is_built));
  has_warpgroups = error == cudaSuccess && is_built != 0;
  return error;
}

}  // namespace millrace::cuda
