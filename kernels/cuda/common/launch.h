// SPDX-License-Identifier: Apache-2.0
#pragma once
// How every launcher launches: Launch(Kernel<...>, {grid, block, shared_bytes, stream, is_dependent}, arguments...).
#include <cuda_runtime.h>

#include <cstddef>
#include <type_traits>

namespace millrace::cuda {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;  // dynamic shared memory of a block
  cudaStream_t stream = nullptr;
  // May start before the stream's previous kernel is through: only for kernels that call ptx::GridDependencyWait()
  // before they touch what a predecessor reads or writes.
  bool is_dependent = false;
  // Blocks beside each other along x that run at once and reach each other's shared memory (sm_90 and later); the grid
  // is a multiple.
  unsigned cluster_blocks = 1;
};

template <typename... Parameters, typename... Arguments>
cudaError_t Launch(void (*kernel)(Parameters...), const LaunchShape& shape, Arguments&&... arguments) {
  // Beyond 48 KB it must be asked for, and the kernel's static arrays, whose size is not known here, count too.
  if (shape.shared_bytes > 0) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchAttribute attributes[2] = {};
  unsigned num_attributes = 0;
  if (shape.is_dependent) {
    cudaLaunchAttribute& dependent = attributes[num_attributes++];
    dependent.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    dependent.val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster_blocks > 1) {
    cudaLaunchAttribute& cluster = attributes[num_attributes++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = shape.cluster_blocks;
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = shape.stream;
  config.attrs = attributes;
  config.numAttrs = num_attributes;
  return cudaLaunchKernelEx(&config, kernel, static_cast<std::type_identity_t<Parameters>>(arguments)...);
}

}  // namespace millrace::cuda
